/**
 * Builds the package: JavaScript with source maps, the types that the entries of `exports` need, and the files that are
 * read at run time. Node strips no types below `node_modules`, so that the package cannot consist of the sources.
 *
 *   node .ci/build.ts [FOLDER] [--package]
 *
 * The default folder is dist. `--package` is for the package: shorter code, and no source maps, which would double its size.
 */
import { execFile } from 'node:child_process'
import { globSync } from 'node:fs'
import { chmod, cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join, normalize, relative, resolve } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { build } from 'esbuild'
import { rollup } from 'rollup'
import { dts } from 'rollup-plugin-dts'
import { minify } from 'terser'

const home = resolve(import.meta.dirname, '..')
const { positionals, values } = parseArgs({ allowPositionals: true, options: { package: { type: 'boolean' } } })
const isPackage = values.package === true
const out = resolve(positionals[0] ?? join(home, 'dist'))

const { exports: entries, bin } = JSON.parse(await readFile(join(home, 'package.json'), 'utf8')) as {
  exports: Record<string, string | { checkout: string; types: string }>
  bin: Record<string, string>
}
const inOut = (file: string) => relative('dist', normalize(file))

/** Modules that stay files of their own: entries of the package, commands, and modules that are loaded by their path. */
const modules = [
  ...Object.values(entries).flatMap((entry) => (typeof entry === 'string' ? [] : [entry.checkout])),
  'plugins/bin.ts',
  'plugins/edge-half.mts',
  'plugins/mesh-half.mts',
  'plugins/sidecar-half.mts',
  'plugins/edge/concerns/oidc/login.mts',
  'config/yaml-thread.ts',
  'plugins/edge/concerns/basic-auth/bcrypt-thread.ts',
  'routes/portal/thread.ts',
  'config/examples/service.ts',
  'config/examples/services.ts'
]

/** Folder of the declarations of all modules, before they are merged. */
const declarations = join(out, '.declarations')

await rm(out, { recursive: true, force: true })
await Promise.all([bundle(), compileTypes().then(bundleTypes)])
await copyFiles()
for (const file of Object.values(bin)) await chmod(join(out, inOut(file)), 0o755)

/**
 * Merges the modules into as few files as their use allows: what is loaded together is in one file. Node then needs a third
 * less CPU to start than with a file for each module. Packages stay outside.
 */
async function bundle(): Promise<void> {
  await build({
    absWorkingDir: home,
    entryPoints: modules,
    outdir: out,
    outbase: home,
    // The place of `plugins/home.ts`, which finds the program's files.
    chunkNames: 'plugins/[name]-[hash]',
    bundle: true,
    splitting: true,
    packages: 'external',
    format: 'esm',
    platform: 'node',
    target: 'node24.2',
    legalComments: 'none',
    sourcemap: !isPackage,
    sourcesContent: false,
    minifySyntax: isPackage,
    logLevel: 'warning'
  })
  if (isPackage) for (const file of globSync('**/*.js', { cwd: out })) await shorten(join(out, file))
}

/**
 * Removes white space and shortens names. Functions and classes keep theirs, so that stack traces and logged errors can be
 * read; lines have a limit, since Node prints the line of an uncaught error.
 */
async function shorten(file: string): Promise<void> {
  const source = await readFile(file, 'utf8')
  // Names that classes and functions get from variables; esbuild writes all classes so.
  const ofModule = [...source.matchAll(/^(?:var|let|const) .*/gm)].join('\n')
  const named = [
    ...source.matchAll(/\b(\w+) = class\b/g),
    ...ofModule.matchAll(/(?:^\w+ |, )(\w+) = (?:async\b|function\b|\(|\w+ =>)/gm)
  ].map(([, name]) => name!)
  const { code } = await minify(source, {
    module: true,
    ecma: 2020,
    // Nothing that removes a function from stack traces.
    compress: { toplevel: false, inline: false, reduce_funcs: false, keep_fnames: true, keep_classnames: true },
    mangle: { keep_fnames: true, keep_classnames: true, reserved: named },
    format: { max_line_len: 2000, shebang: true }
  })
  await writeFile(file, code!)
}

/** Writes the types, without checking them, which `npm run typecheck` does and takes ten times as long. */
async function compileTypes(): Promise<void> {
  const tsc = join(home, 'node_modules/typescript/bin/tsc')
  const options = ['--outDir', declarations, '--noCheck', '--declaration', '--emitDeclarationOnly']
  await promisify(execFile)(process.execPath, [tsc, '-p', join(home, '.ci/tsconfig.build.json'), ...options]).catch(
    ({ stdout, message }) => {
      throw new Error(stdout || message)
    }
  )
}

/**
 * Merges the declarations that the entries of `exports` lead to into few files, with the comments of those that users meet: the
 * entries' own, those that an entry imports, and, for authors of concerns, those that these import in turn. Those that augment
 * other modules (`fastify.mesh`, the options of concerns) count for each entry, though none imports them: a concern is named by
 * nothing but its list.
 */
async function bundleTypes(): Promise<void> {
  const sources = new Map<string, string>()
  for (const file of globSync('**/*.d.{ts,mts}', { cwd: declarations }))
    sources.set(
      file,
      (await readFile(join(declarations, file), 'utf8')).replaceAll(/(['"]\.[^'"\n]+)\.ts(?=['"])/g, '$1.js')
    )
  const augmenting = [...sources].filter(([, source]) => /^declare module '/m.test(source)).map(([file]) => file)
  const ofFastify = (file: string) => /^declare module 'fastify'/m.test(sources.get(file)!)
  const ofMesh = augmenting.filter((file) => /^plugins\/(mesh\/|seam\.)/.test(file) && !ofFastify(file))
  const importAll = (files: string[]) => files.map((file) => `import './${file.replace('.d.ts', '.js')}';\n`).join('')
  sources.set('augmentations.d.ts', importAll(augmenting) + augmentedTypes(augmenting, sources))
  sources.set('mesh-augmentations.d.ts', importAll(ofMesh))
  const documented = new Set<string>()
  const files = ['augmentations.d.ts']
  for (const [name, entry] of Object.entries(entries)) {
    if (typeof entry === 'string') continue
    const file = inOut(entry.types)
    files.push(file)
    const source = sources.get(file)
    if (source === undefined) throw new Error(`exports["${name}"]: ${entry.types} is not built`)
    const list = name.startsWith('./mesh') ? 'mesh-augmentations.js' : 'augmentations.js'
    sources.set(file, `import '${relative(dirname(file), list).replace(/^(?!\.)/, './')}';\n${source}`)
    const imported = importsOf(file, source)
    // Types that make up a concern: `EdgeDefinition` and `UserMeshConcern` extend types of further files.
    const further = name === './plugin' ? imported.flatMap((each) => importsOf(each, sources.get(each) ?? '')) : []
    for (const each of [file, ...imported, ...further]) documented.add(each)
  }
  for (const [file, source] of sources) {
    await writeFile(join(declarations, file), documented.has(file) ? source : withoutInnerComments(source))
  }
  await using bundled = await rollup({
    input: Object.fromEntries(files.map((file) => [file.replace('.d.ts', ''), join(declarations, file)])),
    external: (id) => !/^[./]/.test(id),
    plugins: [dts()],
    // Its advice on types that cannot be named does not apply: users of these types do not write declarations.
    onLog: (level, { message }) => level === 'warn' && /augments names/.test(message) && fail(message)
  })
  await bundled.write({
    dir: out,
    entryFileNames: '[name].d.ts',
    chunkFileNames: 'types/[name].ts',
    // Augmentations name the types.
    minifyInternalExports: false
  })
  await rm(declarations, { recursive: true })
}

function fail(message: string): never {
  throw new Error(message)
}

/** Returns exports of the types of our own modules that declarations augment. Without them, a chunk could rename the types. */
function augmentedTypes(files: readonly string[], sources: ReadonlyMap<string, string>): string {
  const names = new Map<string, Set<string>>()
  for (const file of files) {
    for (const [, module, body] of sources.get(file)!.matchAll(/^declare module '(\.[^']+)' \{\n(.*?)^\}$/gms)) {
      const target = join(dirname(file), module!)
      const known = names.get(target) ?? new Set()
      for (const [, name] of body!.matchAll(/^ {4}interface (\w+)/gm)) known.add(name!)
      names.set(target, known)
    }
  }
  return [...names].map(([module, all]) => `export type { ${[...all].join(', ')} } from './${module}';\n`).join('')
}

/** Returns the declarations that a file imports, as paths in the output. */
function importsOf(file: string, source: string): string[] {
  const specifiers = source.matchAll(/(?:from|import|import\(|module) ?['"](\.[^'"]+)['"]/g)
  return [...specifiers].map(([, specifier]) => join(dirname(file), specifier!).replace(/\.[jt]s$/, '.d.ts'))
}

/** Removes comments, which are about internals, except those of properties that a module adds to Fastify's types. */
function withoutInnerComments(types: string): string {
  const parts = types.split(/(^declare module 'fastify'.*?^\}\n)/ms)
  return parts.map((part, index) => (index % 2 === 1 ? part : part.replaceAll(/^\s*\/\*\*.*?\*\/\n/gms, ''))).join('')
}

/** Copies the files that are read at run time. */
async function copyFiles(): Promise<void> {
  for (const file of ['config/gateway.yaml', 'config/examples/cluster.yaml']) {
    await mkdir(join(out, dirname(file)), { recursive: true })
    const text = await readFile(join(home, file), 'utf8')
    await writeFile(join(out, file), text.replaceAll(/(path: \.\/\S+)\.ts\b/g, '$1.js'))
  }
  await cp(join(home, 'config/starter'), join(out, 'config/starter'), { recursive: true })
}
