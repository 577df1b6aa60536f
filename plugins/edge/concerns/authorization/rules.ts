/** Evaluation of ordered rules: the first one whose conditions all hold decides. */
import type { PathReadings, ReadPath } from '../../../../config/path-reading.ts'
import { fold } from '../../../../config/path-reading.ts'
import { hasClaim, scopesOf } from '../../claims.ts'
import type { Consumer } from '../../consumers/consumer.ts'
import type { RequestAddress } from '../../protocol/address-list.ts'
import { AddressList } from '../../protocol/address-list.ts'
import { fieldTest } from './fields.ts'
import { timeTest } from './hours.ts'
import type { AuthorizationOptions, RuleOptions } from './options.ts'
import type { PathPattern, Reading } from './paths.ts'
import { matches, pathPattern, Readings } from './paths.ts'

/** Properties of a request that rules are about. */
export interface Facts {
  readonly method: string
  /** Null if the path cannot be read. Called only if rules have paths. */
  path(): ReadPath | null
  readonly rawHeaders: readonly string[]
  readonly consumer: Consumer | null
  readonly user: unknown
  address(): RequestAddress
  date(): number
}

export interface Decision {
  /** `ambiguous`: services may read the path in ways for which the rules decide differently. */
  readonly action: 'allow' | 'deny' | 'ambiguous'
  /** Index of the rule; null for the default. */
  readonly rule: number | null
  /** Scopes with which a rule would have allowed the request. */
  readonly scopes: readonly string[] | null
}

interface Rule {
  readonly action: 'allow' | 'deny'
  /** Patterns by the level of the reading; null for a rule without paths. */
  readonly paths: readonly (readonly PathPattern[])[] | null
  readonly conditions: readonly ((facts: Facts) => boolean)[]
  readonly scopes: readonly string[]
}

const pathless: readonly Reading[] = [{ level: 0, segments: [] }]

export class Rules {
  readonly #rules: readonly Rule[]
  readonly #default: 'allow' | 'deny'
  readonly #readings: Readings | null

  constructor({ rules, default: otherwise }: AuthorizationOptions, paths: PathReadings) {
    const patterns = rules.map((rule) => rule.paths?.map(pathPattern))
    const parts = patterns.flatMap((each) => each?.flatMap((pattern) => pattern.parts) ?? [])
    const texts = parts.filter((part) => part !== null)
    const readings = new Readings(paths, texts)
    this.#default = otherwise
    this.#readings = patterns.some((each) => each !== undefined) ? readings : null
    this.#rules = rules.map((rule, index) => ({
      action: rule.action,
      paths:
        patterns[index] === undefined
          ? null
          : readings.foldings.map((folding) =>
              patterns[index]!.map(({ parts, end }) => {
                return { parts: parts.map((part) => (part === null ? null : fold(part, folding))), end }
              })
            ),
      conditions: conditionsOf(rule),
      scopes: rule.scopes ?? []
    }))
  }

  decide(facts: Facts): Decision {
    const read = this.#readings === null ? undefined : facts.path()
    if (read === null) return { action: 'ambiguous', rule: null, scopes: null }
    const readings = read === undefined ? pathless : this.#readings!.of(read)
    const first = this.#decideFor(readings[0]!, facts)
    for (let i = 1; i < readings.length; i++) {
      if (this.#decideFor(readings[i]!, facts).action !== first.action) return { ...first, action: 'ambiguous' }
    }
    return first
  }

  #decideFor({ level, segments }: Reading, facts: Facts): Decision {
    let lacking: readonly string[] | null = null
    for (const [index, { action, paths, conditions, scopes }] of this.#rules.entries()) {
      if (paths !== null && !paths[level]!.some((pattern) => matches(pattern, segments))) continue
      if (!conditions.every((holds) => holds(facts))) continue
      const held = scopes.length === 0 ? null : scopesOf(facts.user)
      if (held === null || scopes.every((scope) => held.has(scope))) return { action, rule: index, scopes: null }
      if (action === 'allow') lacking ??= scopes
    }
    return { action: this.#default, rule: null, scopes: lacking }
  }
}

/** Returns the conditions of a rule other than paths and scopes. */
function conditionsOf(rule: RuleOptions): ((facts: Facts) => boolean)[] {
  const { methods, headers = {}, consumers, groups, claims = {}, addresses, time } = rule
  const isDeny = rule.action === 'deny'
  const conditions: ((facts: Facts) => boolean)[] = []
  if (methods !== undefined) {
    const all = new Set(methods.includes('GET') ? [...methods, 'HEAD'] : methods)
    conditions.push(({ method }) => all.has(method))
  }
  if (consumers !== undefined) {
    const isAny = consumers.includes('*')
    const names = new Set(consumers)
    conditions.push(({ consumer }) => consumer !== null && (isAny || names.has(consumer.id)))
  }
  if (groups !== undefined) {
    const names = new Set(groups)
    conditions.push(({ consumer }) => consumer?.groups.some((group) => names.has(group)) === true)
  }
  for (const [path, wanted] of Object.entries(claims)) conditions.push(({ user }) => hasClaim(user, path, wanted))
  if (addresses !== undefined) {
    const list = new AddressList(addresses)
    conditions.push((facts) => {
      const address = facts.address()
      // An unreadable address may be a denied one.
      return address === null ? isDeny : list.has(address)
    })
  }
  if (time !== undefined) {
    const isWithin = timeTest(time)
    conditions.push((facts) => isWithin(facts.date()))
  }
  for (const [name, wanted] of Object.entries(headers)) {
    const holds = fieldTest(name, wanted, isDeny)
    conditions.push(({ rawHeaders }) => holds(rawHeaders))
  }
  return conditions
}
