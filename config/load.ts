/** Loads a configuration file: reads, validates and completes it, or reports all of its faults. */
import { dirname, resolve } from 'node:path'
import type { Steps } from '../plugins/time-slices.ts'
import { atOnce, inSlices } from '../plugins/time-slices.ts'
import { LastCompiled } from './compile.ts'
import { complete } from './complete.ts'
import type { Keys } from './concern.ts'
import { keysAt } from './concern.ts'
import type { Fault } from './faults.ts'
import { ConfigError, Report, segmentsOf } from './faults.ts'
import type { Form, Half } from './form.ts'
import { forwardForm, gatewayForm } from './form.ts'
import { isWithoutMesh, refuseMeshConcerns } from './forward.ts'
import { handOverForm, refuseMeshPlugins } from './halves.ts'
import { instancesKey } from './instances.ts'
import { parsed, parsedAsync } from './parse.ts'
import type { ImportModule } from './plugin-concerns.ts'
import { entriesOf, pluginConcerns, pluginModules, reportFailed, warnOfChanged } from './plugin-concerns.ts'
import { pluginSources } from './plugin-sources.ts'
import { read } from './read.ts'
import { withPluginKeys } from './route-config.ts'
import { withGateway } from './schema/sidecar.ts'
import Type from './schema/type.ts'
import type { Config, Written } from './schema.ts'
import { handsOver, isSidecar, sidecarForm, sidecarSchema } from './sidecar.ts'
import type { Source } from './source-file.ts'
import { hashOf, sourceOf } from './source-file.ts'
import { Validator } from './validate.ts'

export type { Fault } from './faults.ts'
export { ConfigError }

type Warn = (warning: Fault) => void

/** Changes the data of a file. `sourceOf` returns the name of the source of a value, or undefined if that is the file. */
export type Amend = (data: unknown) => {
  readonly data: unknown
  readonly sourceOf: (at: string) => string | undefined
}

/** Configuration of a gateway under test. */
export interface AmendedSource {
  /** Paths in the configuration are relative to its folder. */
  readonly file: string
  /** Default: that of the file. */
  readonly text?: string | undefined
  readonly amend: Amend
  readonly env: NodeJS.ProcessEnv
  readonly warn?: Warn
}

/** Loads configurations with the keys of given concerns. */
export class Loader {
  readonly #keys: Keys
  /** Errors of plugins' modules that could not be imported, by index. */
  readonly #failures: ReadonlyMap<number, unknown>
  readonly #last: LastCompiled
  readonly #form: Form
  #schema: ReturnType<Form['schema']> | undefined
  /** Loads the configurations of sidecars. */
  #sidecar: Loader | undefined
  /** Loads the configurations without the mesh. */
  #withoutMesh: Loader | undefined
  /** Loads the configurations of gateways whose mesh half can run in a sidecar. */
  #handingOver: Loader | undefined

  constructor(
    keys: Keys,
    failures: ReadonlyMap<number, unknown> = new Map(),
    last: LastCompiled = new LastCompiled(),
    form: Form = gatewayForm
  ) {
    this.#keys = keys
    this.#failures = failures
    this.#last = last
    this.#form = form
  }

  /** The schema of a file. */
  get schema(): ReturnType<Form['schema']> {
    this.#schema ??= this.#form.schema(this.#keys)
    return this.#schema
  }

  /** The schema of a file of either form, for editors and documentation. */
  get schemaOfForms(): ReturnType<Form['schema']> {
    const { sidecar, mesh, sources } = this.#keys
    if (sidecar === undefined) return this.schema
    const { properties, ...more } = this.schema
    const section = sidecarSchema({ edge: sidecar.keys, mesh, sources })
    return Type.Object({ ...properties, sidecar: Type.Optional(withGateway(section)) }, more)
  }

  /** Returns the loader for the form of a document. */
  #loaderFor(data: unknown): Loader {
    // Read only then: the keys are getters, which load the modules of concerns.
    const own = isSidecar(data) ? this.#keys.sidecar : undefined
    if (own === undefined) {
      if (isWithoutMesh(data)) return this.#loaderWithoutMesh()
      return handsOver(data) ? this.#loaderHandingOver() : this
    }
    const { mesh, sources } = this.#keys
    const keys = { edge: own.keys, mesh, sources }
    this.#sidecar ??= new Loader(keys, new Map(), new LastCompiled(), sidecarForm(own.fixed, keys))
    return this.#sidecar
  }

  /** Returns the loader for files with `mesh: false`, which have no keys of the mesh. */
  #loaderWithoutMesh(): Loader {
    if (this.#form === forwardForm) return this
    const { edge, positions, routeConfig } = this.#keys
    const keys: Keys = { edge, mesh: [], sources: [instancesKey], positions, routeConfig, withoutMesh: true }
    this.#withoutMesh ??= new Loader(keys, new Map(), new LastCompiled(), forwardForm)
    return this.#withoutMesh
  }

  #loaderHandingOver(): Loader {
    const { sidecar, ...keys } = this.#keys
    if (this.#form.divide !== undefined || sidecar === undefined) return this
    const form = handOverForm(sidecar)
    this.#handingOver ??= new Loader(keys, new Map(), new LastCompiled(), form)
    return this.#handingOver
  }

  /**
   * Loads a file without importing its plugins. `warn` is called for each warning, unless there are faults.
   * @throws {ConfigError} with every fault of the file.
   */
  load(file: string, env: NodeJS.ProcessEnv = process.env, warn: Warn = () => {}): Config {
    return this.#parse(sourceOf(file), file, env, warn)
  }

  /** Loads a configuration from a text instead of a file. */
  parse(text: string, file: string, env: NodeJS.ProcessEnv = process.env, warn: Warn = () => {}): Config {
    return this.#parse({ text, hash: hashOf(text) }, file, env, warn)
  }

  #parse({ text, hash }: Source, file: string, env: NodeJS.ProcessEnv, warn: Warn): Config {
    const report = new Report(file)
    const data = atOnce(read(parsed(text, report), env, report))
    return atOnce(this.#loaderFor(data).#finish(data, hash, file, report, warn))
  }

  /**
   * Loads a file whose plugins may define concerns or keys of `routes[].config`, which are known only from their modules. A
   * large file does not block the event loop.
   */
  async loadWithPlugins(
    imported: ImportModule,
    file: string,
    env: NodeJS.ProcessEnv = process.env,
    warn: Warn = () => {},
    half: Half = 'gateway'
  ): Promise<Config> {
    const { config } = await this.#parseWithPlugins(imported, sourceOf(file), file, env, warn, { half })
    return config
  }

  /**
   * Loads a file, or a text instead, after `amend` has changed its data, and returns the configuration with the keys of all
   * concerns; for gateways under test.
   */
  async loadAmended(
    imported: ImportModule,
    { file, text, amend, env, warn = () => {} }: AmendedSource
  ): Promise<{ readonly config: Config; readonly keys: Keys }> {
    const source = text === undefined ? sourceOf(file) : { text, hash: hashOf(text) }
    return this.#parseWithPlugins(imported, source, file, env, warn, { amend, half: 'both' })
  }

  async #parseWithPlugins(
    imported: ImportModule,
    { text, hash }: Source,
    file: string,
    env: NodeJS.ProcessEnv,
    warn: Warn,
    { amend, half }: { amend?: Amend; half?: Half }
  ): Promise<{ config: Config; keys: Keys }> {
    const report = new Report(file)
    const document = await inSlices(read(await parsedAsync(text, report), env, report))
    const data = amend === undefined ? document : amended(document, amend, report)
    const loader = await this.#withPlugins(data, file, report, imported)
    const config = await inSlices(loader.#finish(data, hash, file, report, warn, half))
    return { config, keys: loader.#keys }
  }

  /** Returns the schema of a file with the concerns of its plugins. */
  async schemaOf(imported: ImportModule, file: string, env: NodeJS.ProcessEnv = process.env): Promise<object> {
    const report = new Report(file)
    const data = await inSlices(read(await parsedAsync(sourceOf(file).text, report), env, report))
    const loader = await this.#withPlugins(data, file, report, imported)
    report.throwIfAny()
    return loader.schema
  }

  async #withPlugins(data: unknown, file: string, report: Report, imported: ImportModule): Promise<Loader> {
    const loader = this.#loaderFor(data)
    // A sidecar has no plugins.
    if (isSidecar(data)) return loader
    if (loader !== this) return loader.#withPlugins(data, file, report, imported)
    const entries = entriesOf(data)
    const failures = new Map<number, unknown>()
    const modules = await pluginModules(entries, resolve(file), imported, (index, error) => failures.set(index, error))
    warnOfChanged(modules, report)
    const concerns = pluginConcerns(modules, report, this.#keys)
    const { sources, areSound } = pluginSources(modules, report, this.#keys.sources)
    const meshPlugins = new Set(modules.flatMap((module, index) => (module?.concern?.layer === undefined ? [] : index)))
    if (this.#keys.withoutMesh) refuseMeshConcerns(meshPlugins, report)
    if (this.#form.divide !== undefined) refuseMeshPlugins(modules, report)
    const keys: Keys = {
      edge: [...this.#keys.edge, ...concerns.edge],
      mesh: [...this.#keys.mesh, ...concerns.mesh],
      sources,
      positions: [...(this.#keys.positions ?? []), ...keysAt(concerns.edge, 'route').map(({ name }) => name)],
      lackConcerns: failures.size > 0 || !concerns.areSound || !areSound,
      meshPlugins,
      withoutMesh: this.#keys.withoutMesh,
      routeConfig: withPluginKeys(this.#keys.routeConfig, entries, modules, report)
    }
    return new Loader(keys, failures, this.#last, this.#form)
  }

  *#finish(
    data: unknown,
    hash: string,
    file: string,
    report: Report,
    warn: Warn,
    half: Half = 'gateway'
  ): Steps<Config> {
    removeIgnoredKeys(data)
    const written = data as Written
    const form = this.#form
    form.prune(written, report)
    const validator = new Validator(this.#last.compiled(this.schema), this.#keys)
    yield* validator.validate(data, report)
    if (report.usable('')) form.normalize(written, report)
    const absolute = (path: string) => resolve(dirname(resolve(file)), path)
    yield* form.check({ data: written, keys: this.#keys, report, absolute })
    reportFailed(this.#failures, entriesOf(data), resolve(file), report)
    report.throwIfAny(this.#failures.values().next().value)
    for (const warning of report.warnings) warn(warning)
    form.expand(written)
    const config = yield* complete(written, { file: resolve(file), hash }, this.#keys, report)
    report.throwIfAny()
    return form.divide?.(config, this.#keys, half) ?? config
  }
}

/** Changes the data of a file, and the places that faults have. */
function amended(document: unknown, amend: Amend, report: Report): unknown {
  const { data, sourceOf } = amend(document)
  report.amend((inFile) => (at) => {
    const file = sourceOf(at)
    if (file === undefined) return inFile(at)
    const value = segmentsOf(at).reduce((holder, key) => Reflect.get(Object(holder), key), data)
    return value === undefined ? undefined : { line: 0, column: 0, file, isList: Array.isArray(value) }
  })
  return data
}

/** Removes keys without meaning: `x-` sections for anchors, and lists whose items are all commented out. */
function removeIgnoredKeys(data: unknown): void {
  if (typeof data !== 'object' || data === null) return
  for (const [key, value] of Object.entries(data)) {
    const isEmptyList = (key === 'plugins' || key === 'consumers') && value === null
    if (key.startsWith('x-') || isEmptyList) Reflect.deleteProperty(data, key)
  }
}
