/** The divide, held: who may import whom, over all sources. */
import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative, resolve } from 'node:path'
import t from 'tap'
import type { Key } from '../config/concern.ts'
import { Mode } from '../config/schema/kit.ts'
import { concerns as edgeConcerns } from '../plugins/edge/index.ts'
import { concerns as meshConcerns } from '../plugins/mesh/chain.ts'
import { sources as discoverySources } from '../plugins/mesh/discovery/sources.ts'

const root = resolve(import.meta.dirname, '..')

interface Import {
  /** Path from the root for a file, else the name of the package or of Node's module. */
  readonly target: string
  readonly typeOnly: boolean
}
type Sources = ReadonlyMap<string, string>

/** A string such as '/*' begins no comment. */
const withoutComments = (source: string) => source.replace(/(^|\s)\/\*[\s\S]*?\*\//g, '$1').replace(/^\s*\/\/.*$/gm, '')

function importsOf(file: string, source: string): Import[] {
  const code = withoutComments(source)
  const statements = [
    ...code.matchAll(/^(?:import|export)(\s+type\b)?(?:[^'";]*?\sfrom)?\s*'([^']+)'/gm),
    ...code.matchAll(/\b(?:import|require|onFirstUse<.*>)(\s+type)?\(\s*'([^']+)'/g)
  ]
  return statements.map(([, type, specifier]) => ({
    target: specifier!.startsWith('.') ? normalize(join(file, '..', specifier!)) : specifier!,
    typeOnly: type !== undefined
  }))
}

const isFastify = (target: string) => /^(@fastify\/|fastify(-|$))/.test(target)
const isFile = (target: string) => /\.[cm]?[jt]sx?$/.test(target)
const isNode = (target: string) => target.startsWith('node:')
const within = (folder: string) => (target: string) => target.startsWith(`${folder}/`)
const [inMesh, inEdge, inOperations] = ['plugins/mesh', 'plugins/edge', 'plugins/operations'].map(within) as [
  (target: string) => boolean,
  (target: string) => boolean,
  (target: string) => boolean
]

/** Calls without the mesh, in place of the mesh half. */
const inForward = within('plugins/forward')

/** Types of what crosses the seam between the halves, for both of them. */
const seam = 'plugins/seam.ts'
const seams = [seam, 'plugins/seam-inbound.ts', 'plugins/seam-keys.ts']

/** Returns the concern that a file belongs to, its file or folder, or the source of instances, its folder. */
const concernOf = (file: string) =>
  /^plugins\/(?:(?:edge|mesh)\/concerns\/[^/]+|mesh\/discovery\/[^/]+(?=\/))/.exec(file)?.[0] ?? null

/** The program of the package's command. */
const command = 'plugins/bin.ts'

/** The ordered list of each half, and that of the sources. */
const lists = ['plugins/edge/index.ts', 'plugins/mesh/chain.ts', 'plugins/mesh/discovery/sources.ts']

/** Pauses in long work; routes, which take a while to add, use it too. */
const timeSlices = 'plugins/time-slices.ts'

/** Chunks of bodies; composed routes, which read bodies, use it too. */
const chunkList = 'plugins/chunk-list.ts'

/** Place of the files of the program: the only module that uses its own path, which a build changes. */
const ownPlace = 'plugins/home.ts'

/** Modules for both halves, operations and the configuration. They import Node's modules alone. */
const shared = [
  'plugins/http-syntax.ts', 'plugins/thrown.ts', 'plugins/thrown-at.ts', 'plugins/meter.ts', 'plugins/stores.ts', 'plugins/alternative-names.ts',
  'plugins/listener-of.ts', 'plugins/seam-headers.ts', 'plugins/clock.ts', 'plugins/on-first-use.ts', 'plugins/address-ranges.ts', 'plugins/base-path.ts', 'plugins/spans.ts', timeSlices, chunkList, 'plugins/echoed-secrets.ts', ownPlace
] // biome-ignore format: a list

/** The only file that loads Node's HTTP module: `import` of it loads Node's own undici as well. */
const nodeHttp = 'plugins/node-http.ts'

/** A mechanism that both halves and operations use. It imports Node's modules alone. */
const watcher = 'plugins/watch-files.ts'

/** The only file that loads undici: the parts that calls need, and not the package. */
const undiciParts = 'plugins/undici.ts'

/** Operations' calls to the collector of spans. */
const collector = 'plugins/operations/tracing/collector.ts'

/** Packages that a room of the mesh needs beside undici. */
const meshPackages: Record<string, string[]> = {
  'plugins/mesh/discovery/': ['consul', 'dns-packet'],
  'plugins/mesh/concerns/credentials/': ['openid-client']
}

/** The only file of the mesh that reads files as the configuration does; it is imported on first use. */
const fileFormats = 'plugins/mesh/discovery/file/parse.ts'

/** Modules that the options of a concern and their checks are made of. */
const ofOptions = new Set([
  'typebox', 'config/schema/type.ts', 'config/schema/kit.ts', 'config/units.ts', 'config/concern.ts', 'config/checked.ts',
  'config/faults.ts', 'config/nearest.ts', 'config/instances.ts', 'config/schema/service.ts', 'config/targets.ts'
]) // biome-ignore format: a list

/** Returns the rule that an import breaks, in words, or null. */
function broken(file: string, { target, typeOnly }: Import): string | null {
  // Puts a gateway together for tests, as the composition root does for clients.
  if (within('plugins/testing')(file)) return within('test')(target) ? 'no source imports a test' : null
  if (within('plugins/testing')(target)) return 'the gateway does not load what tests it'
  if (target === 'app.ts') return file === command ? null : 'nothing but the command imports the composition root'
  if (within('test')(target)) return 'no source imports a test'
  if (seams.includes(file)) {
    return typeOnly && (isNode(target) || target === 'undici' || target === 'config/schema.ts')
      ? null
      : 'the seam imports types of Node, undici and the configuration'
  }
  if (target === timeSlices || target === chunkList || target === nodeHttp || target === ownPlace) return null
  if (target === 'node:http' && !typeOnly && !within('config/examples')(file))
    return `values of node:http are those of ${nodeHttp}`
  if (shared.includes(file)) return isNode(target) ? null : 'what all may import imports nothing but Node'
  if (shared.includes(target)) return within('routes')(file) ? 'routes use decorators' : null
  if (file === watcher) return isNode(target) ? null : "the watcher of files imports Node's modules alone"
  if (target === watcher && (inMesh(file) || inEdge(file) || inOperations(file))) return null
  if (seams.includes(target) && (inMesh(file) || inEdge(file) || inOperations(file) || inForward(file))) return null
  if (target === undiciParts)
    return inMesh(file) || inForward(file) || file === collector ? null : 'only calls need values of undici'
  const concern = concernOf(target)
  if (concern !== null && (inMesh(file) || inEdge(file)) && concern !== concernOf(file) && !lists.includes(file)) {
    return concernOf(file) === null ? "only its half's list imports a concern" : 'a concern imports no other concern'
  }
  if (inMesh(file)) {
    if (isFastify(target)) return file === 'plugins/mesh/index.ts' ? null : 'only index.ts of the mesh knows Fastify'
    if (file === fileFormats && within('config')(target)) return null
    if (target === 'config/schema.ts') return typeOnly ? null : 'the mesh takes only types of the configuration'
    if (inMesh(target) || isNode(target) || ofOptions.has(target)) return null
    if (target === 'undici' && typeOnly) return null
    if (target.startsWith('undici')) return `values of undici are those of ${undiciParts}`
    const room = Object.keys(meshPackages).find((folder) => file.startsWith(folder))
    return room !== undefined && meshPackages[room]!.includes(target)
      ? null
      : 'the mesh imports itself, undici and Node'
  }
  if (inForward(file)) {
    if (inForward(target) || isNode(target) || target === 'plugins/keep-stores.ts') return null
    if (isFastify(target)) return file === 'plugins/forward/index.ts' ? null : 'only index.ts of forward knows Fastify'
    if (within('config')(target)) return typeOnly ? null : 'forward takes only types of the configuration'
    if (target.startsWith('undici')) return typeOnly ? null : `values of undici are those of ${undiciParts}`
    return 'calls without the mesh import neither half'
  }
  if (inForward(target)) return file === 'app.ts' ? null : 'forward is loaded by the composition root'
  if (inEdge(file) && (inMesh(target) || inOperations(target) || within('routes')(target))) {
    return 'the edge imports neither mesh nor operations nor routes'
  }
  // A caller of the mesh that comes in is made known to services.
  const isInbound = within('plugins/edge/protocol/inbound')(file)
  if (within('plugins/edge/protocol')(file) && within('plugins/edge/bridge')(target) && !isInbound) {
    return 'rules of HTTP do not know the bridge'
  }
  if (within('routes')(file) && within('plugins')(target)) return 'routes use decorators'
  if (inOperations(file) && (inMesh(target) || inEdge(target) || within('routes')(target))) {
    return 'operations reach both halves through decorators'
  }
  if (within('config')(file) && isFile(target) && !within('config')(target)) {
    // Examples are users' plugins and programs: a copy of them imports values from the entries of the package.
    const isType = within('config/examples')(file) && typeOnly
    if (!isType) return 'the configuration imports nothing of the product but pure functions that all may import'
  }
  return null
}

function violations(sources: Sources): string[] {
  return [...sources].flatMap(([file, source]) =>
    importsOf(file, source).flatMap((item) => {
      const rule = broken(file, item)
      return rule === null ? [] : [`${file} imports ${item.target}: ${rule}`]
    })
  )
}

/** Cycles of imports, of types too: Node does not see those, and a reader follows them. */
function cycles(sources: Sources): string[] {
  const found: string[] = []
  const state = new Map<string, 'open' | 'done'>()
  const visit = (file: string, path: string[]): void => {
    if (state.get(file) === 'open') found.push([...path.slice(path.indexOf(file)), file].join(' → '))
    if (state.has(file)) return
    state.set(file, 'open')
    for (const { target } of importsOf(file, sources.get(file)!)) {
      if (sources.has(target)) visit(target, [...path, file])
    }
    state.set(file, 'done')
  }
  for (const file of sources.keys()) visit(file, [])
  return found
}

/** Uses of the seam, in any of the ways in which Fastify hands out a decorator. */
function touchesSeam(source: string): boolean {
  const code = withoutComments(source)
  return /Decorator(<[^>]*>)?\(\s*['"]mesh['"]|\b(fastify|server|instance|app|this)\.mesh\b|\{[^}]*\bmesh\b[^}]*\} = fastify/.test(
    code
  )
}

const sources: Sources = new Map(
  ['app.ts', ...globSync('{plugins,routes,config}/**/*.{ts,mts}', { cwd: root })]
    .map((file) => relative(root, resolve(root, file)))
    .map((file) => [file, readFileSync(join(root, file), 'utf8')])
)

t.test('the rules read all sources', async (t) => {
  t.ok(sources.size > 60, `${sources.size} files`)
  for (const folder of ['plugins/mesh', 'plugins/edge', 'plugins/operations', 'routes', 'config']) {
    t.ok([...sources.keys()].some(within(folder)), folder)
  }
  const unknown = [...sources].flatMap(([file, source]) =>
    importsOf(file, source).filter(({ target }) => isFile(target) && !sources.has(target))
  )
  t.strictSame(unknown, [], 'each import is one of the parsed files')
  const statements = [...sources.values()].join('\n').match(/^(import|export)\b[^'"]*?from '/gm)!.length
  const parsed = [...sources].reduce((sum, [file, source]) => sum + importsOf(file, source).length, 0)
  t.ok(parsed >= statements, `${parsed} of ${statements}`)
})

t.test('folders import only the folders that they may', async (t) => {
  t.strictSame(violations(sources), [])
})

t.test('there are no import cycles, type imports included', async (t) => {
  t.strictSame(cycles(sources), [])
})

t.test('only the bridge of the edge imports the seam', async (t) => {
  const who = [...sources].filter(([file, source]) => inEdge(file) && touchesSeam(source)).map(([file]) => file)
  // The others make the calls of concerns, of plugins' own code and of @fastify/http-proxy, and count the gateway's nodes.
  const others = ['nodes', 'proxy-client', 'request-mesh'].map((name) => `plugins/edge/bridge/${name}.ts`)
  t.strictSame(who, ['plugins/edge/bridge/auth-server.ts', 'plugins/edge/bridge/forward.ts', ...others])
})

t.test('the seam has declarations only', async (t) => {
  for (const file of seams) t.strictSame(Object.keys((await import(join(root, file))) as object), [], file)
  const declares = (file: string) => sources.get(file)!.includes("declare module 'undici'")
  // The mesh's own keys and those that one of its concerns has for itself; the edge has none.
  const own = (file: string) => file === 'plugins/mesh/core/call-options.ts' || within('plugins/mesh/concerns')(file)
  t.strictSame(
    [...sources.keys()].filter((file) => declares(file) && !own(file)),
    [seam]
  )
})

/** Words for concerns: their keys, and the names that people are shown. */
const wordsOf = (concerns: readonly { readonly name: string; readonly keys?: readonly Key[] }[]) =>
  concerns.flatMap(({ name, keys = [] }) => [name, ...keys.map((key) => key.name)])
const ofEdge = wordsOf(edgeConcerns)
const ofMesh = wordsOf(meshConcerns.filter((concern) => typeof concern !== 'string'))

/**
 * Returns the words for concerns that code has, in strings as well; comments may have them. Of a word in `others`, which
 * has another meaning there, too, only the ways to the options of a concern count: a property of `edge`, `mesh` or a
 * policy, taken by its name or out of braces, and a pointer into the configuration.
 */
function namedIn(source: string, words: readonly string[], others: readonly string[]): string[] {
  const code = withoutComments(source)
  return [...new Set(words)].filter((word) => {
    if (!others.includes(word)) return new RegExp(`(?<![\\w-])${word}(?![\\w-])`).test(code)
    const property = `(?:edge|mesh|policy|\\['(?:edge|mesh)'\\])(?:\\??\\.${word}\\b|(?:\\?\\.)?\\['${word}'\\])`
    const destructured = `\\{[^{}]*\\b${word}\\b[^{}]*\\}(?: = [\\w.]*\\b(?:edge|mesh|policy)\\b|: \\w*Policy\\b)`
    const picked = `\\['(?:edge|mesh)'\\],[^>]*'${word}'`
    return new RegExp(`\\b${property}|${destructured}|${picked}|/(?:edge|mesh)/${word}\\b`).test(code)
  })
}

/** Returns whether a file is part of an example, or writes a configuration: then it names keys, as a user's file does. */
const writesKeys = (file: string) => within('config/examples')(file) || within('config/import')(file)

t.test('configuration, operations and routes name no source of instances', async (t) => {
  // Words with another meaning, too.
  const words = discoverySources.map(({ name }) => name).filter((name) => name !== 'instances' && name !== 'file')
  t.ok(words.length > 1)
  const places = ['config', 'routes', 'plugins/operations'].map(within)
  const named = [...sources].flatMap(([file, source]) =>
    places.some((isIn) => isIn(file)) && !writesKeys(file)
      ? namedIn(source, words, []).map((word) => `${file}: ${word}`)
      : []
  )
  t.strictSame(named, [])
})

t.test('configuration, operations and routes name no concern, and neither half names one of the other', async (t) => {
  const places: [name: string, isIn: (file: string) => boolean, words: string[], others: string[]][] = [
    [
      'config',
      (file) => within('config')(file) && !writesKeys(file),
      [...ofEdge, ...ofMesh],
      // A fault of a file, the default of a variable, other keys of the file, the hash of its bytes.
      // The same timeout of calls without the mesh. The section that a concern of each half needs. Words in names of headers.
      ['fault', 'fallback', 'timeout', 'bodyRate', 'hash', 'responseTimeout', 'tracing', 'jwt', 'csrf']
    ],
    [
      'routes',
      within('routes'),
      [...ofEdge, ...ofMesh],
      // The admin port's page, a fault of a file, options of Fastify and of @fastify/http-proxy, a field of server-sent
      // events, a function of node:crypto, a property of CSS, a member of error bodies.
      ['metrics', 'fault', 'bodyLimit', 'websocket', 'retry', 'hash', 'collapse', 'requestId']
    ],
    [
      'operations',
      inOperations,
      [...ofEdge, ...ofMesh],
      // The section for the export of spans, an option of undici, a kind of result.
      ['metrics', 'fault', 'timeout', 'hash', 'deadline', 'requestId', 'tracing', 'pipelining', 'retry']
    ],
    [
      'both halves',
      (file) => /^plugins\/[^/]+$/.test(file),
      [...ofEdge, ...ofMesh],
      // The hash of a file's bytes, words in the messages of errors, the cache of compiled code.
      ['cache', 'hash', 'limit', 'maintenance']
    ],
    [
      'the edge',
      inEdge,
      ofMesh.filter((word) => !ofEdge.includes(word)),
      // Words of HTTP, and of the edge's own limits and errors.
      ['fault', 'fallback', 'retry', 'timeout', 'limit', 'select', 'hash', 'deadline']
    ],
    [
      'the mesh',
      inMesh,
      ofEdge.filter((word) => !ofMesh.includes(word)),
      // An option of undici, a field of the log, a name for its own limit, its counters, that of an instance.
      ['bodyTimeout', 'requestId', 'rateLimit', 'metrics', 'maintenance']
    ]
  ]
  // Words of JavaScript: `Function.call`, `AggregateError.errors`. Words of HTTP.
  const ofLanguage = [
    'call',
    'errors',
    'authorization',
    'headers',
    'user-agent',
    'query',
    'cookies',
    'credentials',
    'body'
  ]
  for (const [name, isIn, words, ofPlace] of places) {
    const others = [...ofLanguage, ...ofPlace]
    const found = [...sources]
      .filter(([file]) => isIn(file))
      .flatMap(([file, source]) => namedIn(source, words, others).map((word) => `${file}: ${word}`))
    t.strictSame(found, [], name)
  }
  for (const code of [
    'const limit = edge.bodyLimit',
    'route.edge?.bodyLimit ?? 0',
    "edge?.['bodyLimit']",
    'const { a, bodyLimit } = route.edge',
    'const take = ({ bodyLimit }: EdgePolicy) => bodyLimit',
    "type Policy = Pick<RouteConfig['edge'], 'a' | 'bodyLimit'>",
    "report.sound('/edge/bodyLimit')",
    "report.sound(at + '/edge/bodyLimit')"
  ]) {
    t.strictSame(namedIn(code, ['bodyLimit'], ['bodyLimit']), ['bodyLimit'], code)
  }
  for (const code of [
    "const key = 'max-forwards'",
    'x.cors',
    'if (cors) return',
    "'see cors.origin'",
    '`cors`',
    "'/*' + cors + '*/'"
  ]) {
    t.equal(namedIn(code, ofEdge, []).length, 1, code)
  }
  for (const code of ['/** As cors does. */', '// cors', 'corsair', 'is-cors', 'a /* cors */', 'options.bodyLimit']) {
    t.strictSame(namedIn(code, ofEdge, ['bodyLimit']), [], code)
  }
})

/** The first arguments of the log calls of a source that are written as objects, and objects named `fields`. */
function fieldsIn(source: string): string[] {
  const calls = source.matchAll(/\blog(?:ger)?(?:\.\w+|\[[^\]]+\])\(\s*(\{[^;]*?\})\s*,/g)
  const objects = source.matchAll(/const (?:fields|about) = (\{[\s\S]*?\n? *\})\n/g)
  return [...calls, ...objects].map(([, text]) => text!)
}

/** Returns the faults of a log line's fields; in access lines, `error` is a code. */
function faultsOf(fields: string): string[] {
  return [
    ...(!fields.includes('[plain]') &&
    /\b(?:error|e|exception)(?=[:,} ])(?!\.)/.test(fields.replace(/err: \w+(\.\w+)?|\(error\)/g, ''))
      ? ['an error under another name']
      : []),
    ...(/\berr: (?:messageOf|String|[\w.#]*(?:[mM]essage|#error)\b|['"`])/.test(fields) ? ['a text as err'] : [])
  ]
}

t.test('log lines name the request id requestId and the error err, which is an object', async (t) => {
  const product = [...sources].filter(([file]) => !within('config/examples')(file))
  for (const [file, source] of product) {
    // Fastify's name, where it is replaced.
    if (file !== 'plugins/operations/request-logger.ts' && file !== 'plugins/mesh/core/types.ts')
      t.notMatch(source, /\breqId\b/, file)
    for (const fields of fieldsIn(source)) t.strictSame(faultsOf(fields), [], `${file}: ${fields}`)
  }
  const all = product.flatMap(([, source]) => fieldsIn(source))
  t.ok(all.length > 30, `${all.length} found`)
  for (const bad of [
    "{ err: messageOf(error) }", "{ service, err: this.#error }", '{ err: error.message }', "{ err: 'text' }", '{ err: `a` }',
    '{ err: String(error) }', '{ error }', '{ error: err }', '{ a, e }'
  ]) t.ok(faultsOf(bad).length > 0, bad) // biome-ignore format: a list
  for (const good of [
    '{ err }',
    '{ err: error }',
    '{ err: asError(error) }',
    '{ service, err: failure.cause }',
    '{ a: 1 }'
  ]) {
    t.strictSame(faultsOf(good), [], good)
  }
})

t.test('modules do not use their own path, which the build changes', async (t) => {
  const uses = /import\.meta\.(?:dirname|filename)|new URL\([^)]*import\.meta\.url/
  const product = [...sources].filter(([file]) => !within('config/examples')(file) && !within('config/starter')(file))
  const users = product.filter(([, source]) => uses.test(withoutComments(source))).map(([file]) => file)
  t.strictSame(users.sort(), [command, ownPlace])
})

t.test('no module imports node:process, which opens the standard streams: `process` is global', async (t) => {
  const users = [...sources].filter(([file, source]) =>
    importsOf(file, source).some(({ target }) => target === 'node:process')
  )
  t.strictSame(
    users.map(([file]) => file),
    []
  )
})

t.test('each concern of the edge has a shadow mode, or says why not', async (t) => {
  const { enum: modes } = Mode as { enum?: unknown }
  const hasMode = (schema: unknown): boolean => {
    if (typeof schema !== 'object' || schema === null) return false
    const { mode } = schema as { mode?: { enum?: unknown } }
    return mode?.enum === modes || Object.values(schema).some(hasMode)
  }
  for (const { name, keys, noShadow, isShadow } of edgeConcerns) {
    const has = keys.some(({ options }) => hasMode(options))
    t.equal(has, noShadow === undefined, `${name}: ${noShadow ?? 'mode'}`)
    if (has) t.type(isShadow, 'function', name)
    else t.match(noShadow, /^\S.{10}/, `${name} gives the reason`)
  }
})

t.test('source files have at most 300 lines', async (t) => {
  // One declaration of one shape, read from top to bottom like the configuration itself.
  const long = [...sources].filter(([, source]) => source.split('\n').length > 301)
  t.strictSame(
    long.map(([file]) => file),
    []
  )
})

/** Files that the program loads when it imports `entry`, and the packages; without those that only the first file with instances loads. */
function loaded(entry: string) {
  const files = new Set<string>()
  const packages = new Set<string>()
  const visit = (file: string): void => {
    if (files.has(file)) return
    files.add(file)
    for (const { target, typeOnly } of importsOf(file, sources.get(file)!)) {
      if (typeOnly || target === fileFormats) continue
      if (sources.has(target)) visit(target)
      else packages.add(target)
    }
  }
  visit(entry)
  return { files, packages }
}

/** Folders of programs that have their tests beside them: tests elsewhere may import them. */
const programs = ['bench', 'cluster', 'docs', 'fuzz', 'lint'].map((name) => within(`test/${name}`))

/** Returns the rule for shared code of tests that an import breaks, or null. */
function brokenByTest(file: string, target: string): string | null {
  if (!within('test')(target) || within('test/helpers')(target)) return null
  if (within('test/helpers')(file)) return 'helpers import no folder of tests'
  if (within(dirname(target))(file) || programs.some((isOf) => isOf(target))) return null
  return 'code for tests of several folders belongs into test/helpers'
}

t.test('code that tests of several folders share is in test/helpers', async (t) => {
  const tests = globSync('test/**/*.ts', { cwd: root }).map((file) => relative(root, resolve(root, file)))
  t.ok(tests.length > 300)
  const others = tests.filter((file) => /\/helpers\//.test(file) && !within('test/helpers')(file))
  t.strictSame(others, [], 'there is one folder for helpers')
  const found = tests.flatMap((file) =>
    importsOf(file, readFileSync(join(root, file), 'utf8')).flatMap(({ target }) => {
      const rule = brokenByTest(file, target)
      return rule === null ? [] : [`${file} imports ${target}: ${rule}`]
    })
  )
  t.strictSame(found, [])
  t.equal(brokenByTest('test/edge/a.test.ts', 'test/edge/support.ts'), null)
  t.equal(brokenByTest('test/edge/bridge/a.test.ts', 'test/edge/support.ts'), null)
  t.equal(brokenByTest('test/e2e/a.test.ts', 'test/cluster/cluster.ts'), null)
  t.ok(brokenByTest('test/mesh/a.test.ts', 'test/edge/support.ts'))
  t.ok(brokenByTest('test/edge/a.test.ts', 'test/edge/bridge/support.ts'))
  t.ok(brokenByTest('test/helpers/a.ts', 'test/edge/support.ts'))
})

t.test('the mesh loads without Fastify and without the edge', async (t) => {
  const { files, packages } = loaded('plugins/mesh/mesh.ts')
  const names = [...packages].filter((name) => !isNode(name)).map((name) => name.split('/')[0])
  t.strictSame([...new Set(names)].sort(), ['consul', 'dns-packet', 'openid-client', 'undici'])
  const ofConfig = new Set(['config/credentials.ts', watcher, nodeHttp, undiciParts, ...shared])
  const others = [...files].filter((file) => !inMesh(file) && !ofOptions.has(file) && !ofConfig.has(file))
  t.strictSame(others, [])
  t.ok(files.size > 15)
})

t.test('the libraries load without the edge', async (t) => {
  const ofGateway = /^config\/(compose\/|schema\/(compose|forward|route)|forward|complete\.)/
  const isForeign = (file: string) => inEdge(file) || inForward(file) || inOperations(file) || ofGateway.test(file)
  for (const entry of ['plugins/mesh-api.ts', 'plugins/mesh-fastify.ts']) {
    const { files } = loaded(entry)
    t.ok([...files].some(inMesh))
    t.strictSame([...files].filter(isForeign), [], entry)
  }
})

t.test('the edge loads without the mesh', async (t) => {
  for (const entry of ['plugins/edge/index.ts', 'plugins/edge/bridge/forward.ts']) {
    t.notOk([...loaded(entry).files].some(inMesh), entry)
  }
  t.notOk(loaded('plugins/edge/bridge/forward.ts').packages.has('undici'), 'the seam is an interface to the bridge')
})

t.test('each rule reports a violation', async (t) => {
  const bad: [file: string, source: string][] = [
    ['plugins/mesh/x.ts', "import type { RouteConfig } from '../edge/concerns/jwt/index.ts'"],
    ['plugins/mesh/x.ts', "import x from '../operations/metrics.ts'"],
    ['plugins/mesh/x.ts', "import x from '../../routes/proxy.ts'"],
    ['plugins/mesh/x.ts', "import type { FastifyInstance } from 'fastify'"],
    ['plugins/mesh/concerns/index.ts', "import fp from 'fastify-plugin'"],
    ['plugins/mesh/x.ts', "import createError from '@fastify/error'"],
    ['plugins/mesh/x.ts', "import { Gateway } from '../../config/schema.ts'"],
    ['plugins/mesh/x.ts', "import { loadConfig } from '../../config/load.ts'"],
    ['plugins/mesh/x.ts', "import Consul from 'consul'"],
    ['plugins/mesh/x.ts', "const x = await import('../edge/concerns/jwt/index.ts')"],
    ['plugins/mesh/x.ts', "type X = import('../edge/concerns/jwt/index.ts').X"],
    ['plugins/edge/x.ts', "import type { Mesh } from '../mesh/mesh.ts'"],
    ['plugins/edge/x.ts', "export { Mesh } from '../mesh/mesh.ts'"],
    ['plugins/edge/x.ts', "import '../operations/metrics.ts'"],
    ['routes/x.ts', "import {\n  a,\n  b\n} from '../plugins/edge/concerns/jwt/index.ts'"],
    ['plugins/operations/x.ts', "import type { Mesh } from '../mesh/mesh.ts'"],
    ['plugins/operations/x.ts', "import x from '../edge/concerns/jwt/index.ts'"],
    ['config/x.ts', "import x from '../plugins/edge/concerns/jwt/index.ts'"],
    ['config/examples/x.ts', "import { Service } from '../../plugins/mesh/core/service.ts'"],
    ['routes/x.ts', "import { build } from '../app.ts'"],
    ['app.ts', "import { testGateway } from './plugins/testing/index.ts'"],
    ['plugins/operations/x.ts', "import type { ReceivedRequest } from '../testing/received-request.ts'"],
    ['plugins/testing/x.ts', "import { configOf } from '../../test/helpers/gateway.ts'"],
    ['plugins/mesh/concerns/retry/x.ts', "import type { Hedge } from '../hedge/attempts.ts'"],
    ['plugins/mesh/concerns/mirror.ts', "import { fault } from './fault/index.ts'"],
    ['plugins/mesh/mesh.ts', "import { mirror } from './concerns/mirror.ts'"],
    ['plugins/mesh/core/x.ts', "import { mirror } from '../concerns/mirror.ts'"],
    ['plugins/mesh/discovery/x.ts', "import { ConsulSource } from './consul/source.ts'"],
    ['plugins/mesh/discovery/dns/x.ts', "import { ConsulSource } from '../consul/source.ts'"],
    ['plugins/edge/concerns/max-forwards.ts', "import jwt from './jwt/index.ts'"],
    ['plugins/edge/bridge/x.ts', "import type { Consumer } from '../concerns/jwt/index.ts'"],
    ['routes/x.ts', "import type { Caller } from '../plugins/seam.ts'"],
    ['plugins/forward/x.ts', "import type { Call } from '../mesh/core/call.ts'"],
    ['plugins/forward/x.ts', "import { errorTable } from '../edge/errors.ts'"],
    ['plugins/forward/x.ts', "import { Agent } from 'undici'"],
    ['plugins/edge/x.ts', "import { Forwarder } from '../forward/forwarder.ts'"],
    ['plugins/seam.ts', "import type { Call } from './mesh/core/call.ts'"],
    ['plugins/seam.ts', "import { Dispatcher } from 'undici'"],
    ['plugins/thrown.ts', "import { token } from './http-syntax.ts'"],
    ['plugins/watch-files.ts', "import { Jwks } from './edge/concerns/jwt/jwks.ts'"],
    ['config/x.ts', "import { watchFile } from '../plugins/watch-files.ts'"],
    ['routes/x.ts', "import { watchFile } from '../plugins/watch-files.ts'"],
    ['plugins/http-syntax.ts', "import { request } from 'undici'"],
    ['routes/x.ts', "import { token } from '../plugins/http-syntax.ts'"]
  ]
  for (const [file, source] of bad) t.equal(violations(new Map([[file, source]])).length, 1, `${file}: ${source}`)

  const good: [file: string, source: string][] = [
    ['plugins/mesh/index.ts', "import fp from 'fastify-plugin'"],
    ['plugins/testing/x.ts', "import { build } from '../../app.ts'"],
    ['plugins/mesh/x.ts', "import type { MeshPolicy } from '../../config/schema.ts'"],
    [
      'plugins/mesh/x.ts',
      "/* import x from '../edge/concerns/jwt/index.ts' */\n// import x from '../edge/concerns/jwt/index.ts'"
    ],
    ['plugins/edge/x.ts', "import type { Dispatcher } from 'undici'"],
    ['plugins/edge/index.ts', "import jwt from './concerns/jwt/index.ts'"],
    ['plugins/mesh/discovery/sources.ts', "import consul from './consul/index.ts'"],
    ['plugins/mesh/discovery/dns/x.ts', "import { backoff } from '../loop.ts'"],
    ['plugins/edge/concerns/jwt/index.ts', "import { Jwks } from './jwks.ts'"],
    ['plugins/edge/concerns/max-forwards.ts', "import { attach } from '../attach.ts'"],
    ['plugins/edge/x.ts', "import type { CallerOptions } from '../seam.ts'"],
    ['plugins/mesh/x.ts', "import type { CallerOptions } from '../seam.ts'"],
    ['plugins/seam.ts', "import type { RoutePolicy } from '../config/schema.ts'"],
    ['plugins/mesh/x.ts', "import { token } from '../http-syntax.ts'"],
    ['plugins/mesh/x.ts', "import { watchFiles } from '../watch-files.ts'"],
    ['plugins/operations/x.ts', "import { watchFile } from '../watch-files.ts'"],
    ['plugins/watch-files.ts', "import { open } from 'node:fs/promises'"],
    ['config/x.ts', "import { hopByHop } from '../plugins/http-syntax.ts'"],
    ['plugins/operations/x.ts', "import { asError } from '../thrown.ts'"],
    ['config/examples/x.ts', "import type { Interceptor } from '../../plugins/mesh/core/types.ts'"]
  ]
  for (const [file, source] of good) t.strictSame(violations(new Map([[file, source]])), [], `${file}: ${source}`)

  const ring = new Map([
    ['a.ts', "import './b.ts'"],
    ['b.ts', "import x from './c.ts'"],
    ['c.ts', "import { a } from './a.ts'"]
  ])
  t.strictSame(cycles(ring), ['a.ts → b.ts → c.ts → a.ts'])
  ring.set('c.ts', "import type { A } from './a.ts'")
  t.strictSame(cycles(ring), ['a.ts → b.ts → c.ts → a.ts'])
  ring.set('c.ts', "export type C = import('./b.ts').B")
  t.strictSame(cycles(ring), ['b.ts → c.ts → b.ts'])
  ring.set('c.ts', "import type { Readable } from 'node:stream'")
  t.strictSame(cycles(ring), [])

  for (const use of [
    "fastify.getDecorator<Mesh>('mesh')",
    "request.server.hasDecorator('mesh')",
    'fastify.mesh.dispatch()',
    'const { mesh } = fastify'
  ]) {
    t.ok(touchesSeam(use), use)
  }
  t.notOk(touchesSeam('const policy = route.mesh'))
})
