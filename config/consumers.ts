/**
 * Declared consumers: their schema, the checks of a list of them, and the file that may hold the list. `config/` knows no kind
 * of credentials by name: concerns describe theirs by `credentials` of their key.
 */
import { createHash } from 'node:crypto'
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs'
import type { TSchema } from 'typebox'
import type { Steps } from '../plugins/time-slices.ts'
import { atOnce, inSlices } from '../plugins/time-slices.ts'
import { checkSection } from './check-concerns.ts'
import type { Absolute } from './complete-services.ts'
import { completeSection } from './complete-services.ts'
import type { Checked, Key, SourceKey } from './concern.ts'
import { keysAt } from './concern.ts'
import type { Fault } from './faults.ts'
import { ConfigError, pointer, Report } from './faults.ts'
import type { WarnOfIdle } from './idle-consumers.ts'
import { idleSettings } from './idle-consumers.ts'
import { notForConsumers } from './misplaced.ts'
import { didYouMean } from './nearest.ts'
import { parsed, parsedAsync } from './parse.ts'
import { read } from './read.ts'
import { Either, strict, Text } from './schema/kit.ts'
import Type from './schema/type.ts'
import type { ConsumerConfig, Consumers, Written } from './schema.ts'
import { withDefaults } from './settings.ts'

/** Largest file with consumers, in bytes. */
const LARGEST = 32 * 1024 * 1024

const emptyList = 'there is no list; write [] for no consumers'

const texts = (description: string) => Type.Array(Text, { default: [], description })

/** Returns the schema of one consumer, with the credentials that concerns describe. */
function consumer(keys: readonly Key[]): TSchema {
  const credentials = keys.flatMap(({ name, credentials }) =>
    credentials === undefined ? [] : [[name, Type.Optional(credentials.schema)]]
  )
  const edge = keysAt(keys, 'consumer').map(({ name, options, forConsumers }): [string, TSchema] => {
    return [name, Type.Optional(forConsumers?.options ?? options)]
  })
  return Type.Object(
    {
      name: Type.String({
        pattern: '^[^\\u0000-\\u001f\\u007f|]{1,256}$',
        expected: 'a name of at most 256 characters, without vertical bars',
        description: 'Unique name: `request.consumer.id`, and `consumer` in the access line.'
      }),
      groups: texts('Groups, by which rules allow or refuse consumers.'),
      tags: texts('Tags, for services and plugins.'),
      ...Object.fromEntries(credentials),
      ...(edge.length > 0 && {
        edge: Type.Optional(
          Type.Object(Object.fromEntries(edge), {
            ...strict,
            description:
              'Options that the consumer has in place of those of the route, also where the route does not have the concern.'
          })
        )
      })
    },
    strict
  )
}

/** Returns the registries with a key-value store, in which the list may be. */
const storesOf = (sources: readonly SourceKey[]) => sources.filter(({ storedKey }) => storedKey !== undefined)

/** Returns the schema of `consumers`. */
export const consumersSchema = (keys: readonly Key[], sources: readonly SourceKey[]): TSchema =>
  Either(
    { type: 'array' },
    Type.Array(consumer(keys)),
    Type.Object(
      {
        file: Type.Optional(
          Type.String({
            minLength: 1,
            description:
              'YAML or JSON file with the list of consumers. It is read every 500 ms; a change takes effect at once, without a reload. While the file has a fault, the last good list stays in use.'
          })
        ),
        ...Object.fromEntries(storesOf(sources).map(({ name, storedKey }) => [name, Type.Optional(storedKey!)]))
      },
      strict
    ),
    { default: [], description: 'Known callers, with credentials: a list, or where the list is.' }
  )

/** Returns the declared consumers, once their file has been read. */
export const declaredConsumers = ({ consumers }: Pick<Written, 'consumers'>): readonly ConsumerConfig[] =>
  Array.isArray(consumers) ? consumers : ((consumers as Partial<Consumers>).list ?? [])

/** Checks the declared consumers; reads their file. */
export function* checkConsumers(checked: Checked): Steps<void> {
  const { data, report, absolute } = checked
  if (!report.usable('/consumers')) return
  const warnOfIdle = idleSettings(checked)
  if (Array.isArray(data.consumers)) return yield* checkList(data.consumers, '/consumers', checked, warnOfIdle)
  const { file: path } = data.consumers as Partial<Consumers>
  const places = ['file', ...storesOf(checked.keys.sources).map(({ name }) => name)]
  if (!places.every((key) => report.sound(`/consumers/${key}`))) return
  const [place, other] = places.filter((key) => Reflect.get(data.consumers, key) !== undefined)
  if (place === undefined) {
    const known = places.map((key) => `"${key}"`).join(' or ')
    if (!report.unknownKeyIn('/consumers')) report.fault('/consumers', `expected ${known}, or a list`)
    return
  }
  if (other !== undefined)
    return report.fault(`/consumers/${other}`, `excludes "${place}": the list is in one place`, 'key')
  if (path == null) return checkStored(place, checked)
  const file = absolute(path)
  const own = new Report(file)
  try {
    const { text, digest } = contentOf(file)
    const content = atOnce(read(parsed(text, own), process.env, own, emptyList))
    const list = atOnce(listOf(content, { ...checked, report: own }, warnOfIdle))
    Object.assign(data, { consumers: { file, digest, stored: null, list } satisfies Consumers })
  } catch (error) {
    if (!(error instanceof ConfigError)) report.fault('/consumers/file', (error as Error).message)
  }
  report.adopt(own)
}

function checkStored(source: string, { data, report }: Checked): void {
  if (!report.usable('/discovery')) return
  if (Reflect.get(data.discovery, source) === undefined) {
    report.fault(`/consumers/${source}`, `needs discovery.${source}`, 'key')
    return
  }
  const stored = { source, ...(Reflect.get(data.consumers, source) as { key: string }) }
  Object.assign(data, { consumers: { file: null, digest: null, stored, list: [] } satisfies Consumers })
}

/** The configuration in which a list of consumers is used. */
export interface Surroundings extends Pick<Checked, 'data' | 'keys' | 'absolute'> {
  /** Gets the warnings of a list without faults. */
  warn(warning: Fault): void
}

/** Reads a file with consumers. @throws an error with the faults of the file. */
export const readConsumers = async (file: string, surroundings: Surroundings): Promise<readonly ConsumerConfig[]> =>
  parseConsumers(contentOf(file).text, file, surroundings, process.env)

/** Reads a text with consumers; `name` is that of its source, for faults. @throws an error with the faults of the text. */
export async function parseConsumers(
  text: string,
  name: string,
  surroundings: Surroundings,
  env: NodeJS.ProcessEnv | null = null
): Promise<readonly ConsumerConfig[]> {
  const report = new Report(name, { isInUse: true })
  const source = await parsedAsync(text, report)
  const checked = { ...surroundings, report }
  const list = await inSlices(
    listOf(await inSlices(read(source, env, report, emptyList)), checked, idleSettings(checked))
  )
  report.throwIfAny()
  for (const warning of report.warnings) surroundings.warn(warning)
  return list
}

function contentOf(file: string): { text: string; digest: string } {
  // Opening a pipe would otherwise wait for a writer.
  const handle = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const stats = fstatSync(handle)
    if (!stats.isFile()) throw new Error(`${file} is not a file`)
    if (stats.size > LARGEST) throw new Error(`${file} is larger than ${LARGEST / 1024 / 1024} MB`)
    const bytes = readFileSync(handle)
    return { text: bytes.toString(), digest: createHash('sha256').update(bytes).digest('hex') }
  } finally {
    closeSync(handle)
  }
}

/** Returns the consumers of a file: a list, or a mapping whose only key is `consumers`, as in the configuration. */
function* listOf(content: unknown, checked: Checked, warnOfIdle: WarnOfIdle): Steps<readonly ConsumerConfig[]> {
  const { data, keys, report, absolute } = checked
  const isSection = typeof content === 'object' && content !== null && Object.hasOwn(content, 'consumers')
  const at = isSection ? '/consumers' : ''
  const list: unknown = isSection ? Reflect.get(content, 'consumers') : content
  if (isSection) for (const key of Object.keys(content)) if (key !== 'consumers') report.unknownKey('', key, '')
  if (!Array.isArray(list)) {
    report.fault(at, 'expected a list of consumers')
    return []
  }
  const schema = consumer(keys.edge)
  const adviceFor = (holder: string, key: string, known: readonly string[]) => {
    const why = holder.endsWith('/edge') ? notForConsumers(key, keys.edge) : null
    return why === null ? didYouMean(key, known) : `; ${why}`
  }
  const consumers: ConsumerConfig[] = []
  for (const [index, item] of list.entries()) {
    yield
    consumers.push(withDefaults(schema, item, pointer(at, index), report, adviceFor) as ConsumerConfig)
  }
  yield* checkList(consumers, at, { ...checked, data: { ...data, consumers } }, warnOfIdle)
  return report.faults.length === 0 ? completed(consumers, keys.edge, absolute) : consumers
}

/** Returns consumers with absolute paths in their options of concerns. */
export const completed = (
  list: readonly ConsumerConfig[],
  keys: readonly Key[],
  absolute: Absolute
): readonly ConsumerConfig[] =>
  list.map((each) => (each.edge === undefined ? each : { ...each, edge: completeSection(each.edge, keys, absolute) }))

/** Checks that names and credentials are unique, and each credential and option by its concern. */
function* checkList(
  list: readonly ConsumerConfig[],
  base: string,
  checked: Checked,
  warnOfIdle: WarnOfIdle
): Steps<void> {
  const { keys, report } = checked
  const overridable = keysAt(keys.edge, 'consumer')
  const owners = new Map<string, string>()
  const own = (kind: string, id: string, at: string) => {
    const key = `${kind} ${id}`
    const other = owners.get(key)
    if (other === undefined) owners.set(key, at)
    else report.fault(at, `the same ${kind === 'name' ? 'name' : 'credential'} is declared ${report.where(other)}`)
  }
  for (const [index, consumer] of list.entries()) {
    yield
    const at = pointer(base, index)
    if (!report.usable(at)) continue
    checkSection(`${at}/edge`, consumer.edge, overridable, null, checked)
    if (!report.sound(at)) continue
    warnOfIdle(consumer, at, report)
    own('name', consumer.name, `${at}/name`)
    for (const { name, credentials } of keys.edge) {
      const value: unknown = Reflect.get(consumer, name)
      if (credentials === undefined || value === undefined) continue
      const place = `${at}/${name}`
      credentials.check?.(value, place, report)
      for (const [id, below] of credentials.ids(value)) own(name, id, `${place}${below}`)
    }
  }
}
