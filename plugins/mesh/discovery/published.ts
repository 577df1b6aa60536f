/** Checks of the sets that sources of users publish. */
import type { InstanceSpec, Logger } from '../core/types.ts'
import type { Described } from './described.ts'
import { mostInstances, specOf } from './described.ts'
import { fields } from './fields.ts'

/** Longest text, and most tags and keys of the metadata of an instance. */
const longestText = 1024
const mostTexts = 100

export class Published {
  readonly #source: string
  readonly #service: string
  readonly #log: Logger
  /** True once a faulty instance is logged, until a set has none. */
  #isLogged = false

  constructor(source: string, service: string, log: Logger) {
    this.#source = source
    this.#service = service
    this.#log = log
  }

  /**
   * Returns the instances of a set. Leaves out those with a fault and logs the first.
   * @throws an error if the set is no list, is too large, or has no instance without a fault.
   */
  specsOf(published: unknown): readonly InstanceSpec[] {
    if (!Array.isArray(published)) throw new Error('it published no list of instances')
    const { length } = published
    if (length > mostInstances)
      throw new Error(`it published ${length} instances; at most ${mostInstances} are allowed`)
    const specs: InstanceSpec[] = []
    let first: string | null = null
    for (let index = 0; index < length; index++) {
      const described = describedBy(published, index)
      if (typeof described !== 'string') specs.push(specOf(described))
      else first ??= `instances[${index}]: ${described}`
    }
    if (first !== null && specs.length === 0) throw new Error(`it published no usable instance: ${first}`)
    this.#logFault(first, length - specs.length)
    return Object.freeze(specs)
  }

  #logFault(first: string | null, ignored: number): void {
    if (first !== null && !this.#isLogged) {
      const fields = { service: this.#service, source: this.#source, ignored }
      this.#log.warn(
        fields,
        `source of instances ${this.#source} publishes unusable instances, which are ignored: ${first}`
      )
    }
    this.#isLogged = first !== null
  }
}

/** Returns a copy of an instance, or its fault. Reading it may throw, since it may have getters. */
function describedBy(published: readonly unknown[], index: number): Described | string {
  try {
    const item = published[index]
    return checked(typeof item === 'string' ? { url: item } : fields(item))
  } catch (error) {
    return `reading it failed: ${error instanceof Error ? error.message.slice(0, longestText) : 'no error'}`
  }
}

const isText = (value: unknown): value is string => typeof value === 'string' && value.length <= longestText
const isOptionalText = (value: unknown): value is string | undefined =>
  value === undefined || (isText(value) && value !== '')

function checked({
  url,
  id,
  weight = 1,
  tags = [],
  meta = {},
  zone,
  datacenter
}: ReturnType<typeof fields>): Described | string {
  if (!isText(url) || !/^https?:\/\/[^/\\?#@\s]+\/?$/i.test(url) || !URL.canParse(url)) {
    return 'expected an url with http:// or https://, host and port, and nothing else'
  }
  if (new URL(url).port === '0') return 'the port of its url is 0'
  if (!isOptionalText(id)) return 'expected a text as id'
  if (!isOptionalText(zone) || !isOptionalText(datacenter)) return 'expected a text as zone and as datacenter'
  if (typeof weight !== 'number' || !Number.isInteger(weight) || weight < 0 || weight > 65_535) {
    return 'expected an integer from 0 to 65535 as weight'
  }
  if (!Array.isArray(tags) || tags.length > mostTexts || !tags.every(isText)) return 'expected a list of texts as tags'
  const pairs = typeof meta === 'object' && meta !== null && !Array.isArray(meta) ? Object.entries(meta) : null
  if (pairs === null || pairs.length > mostTexts || !pairs.every(([key, value]) => isText(key) && isText(value))) {
    return 'expected texts by keys as meta'
  }
  return { url, id, weight, tags: [...tags], meta: Object.fromEntries(pairs), zone, datacenter }
}
