/** `mesh.balance`. */
import type { Static } from 'typebox'
import type { Checked, Key } from '../../../config/concern.ts'
import { gatewayAndService } from '../../../config/concern.ts'
import {
  Count,
  Duration,
  DurationOrZero,
  Either,
  HashOn,
  Names,
  Percent,
  Share,
  strict
} from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import { isPrime } from './hash.ts'

export const balancePolicies = [
  'round-robin', 'least-request', 'random', 'ring-hash', 'maglev', 'peak-ewma'
] as const // biome-ignore format: a table

export const Balance = Type.Object(
  {
    policy: Names(balancePolicies, { default: 'least-request', description: 'How an instance is chosen.' }),
    choices: Count('least-request: how many instances are compared.', { default: 2, minimum: 2, maximum: 16 }),
    hashOn: Type.Optional(HashOn),
    cookieTtl: Type.Optional(
      DurationOrZero('hashOn cookie: a caller without the cookie is given one of this lifetime; 0s: a session cookie.')
    ),
    ringSize: Count('ring-hash: least points on the ring.', { default: 1024, maximum: 1_048_576 }),
    tableSize: Count('maglev: size of the table, a prime.', { default: 65_537, maximum: 5_000_011 }),
    maxLoad: Type.Optional(
      Percent('Hashing with bounded load: an instance takes at most this share of the mean; 150% is a good one.')
    ),
    decay: Duration('peak-ewma: how fast a measured latency fades.', { default: '10s' }),
    slowStart: Type.Optional(
      Duration('A new or recovered instance works its way up to its full weight within this time.')
    ),
    panicThreshold: Share('With fewer available instances than this, all of them are used. 0%: never.', {
      default: '50%'
    }),
    locality: Names(['ignore', 'prefer'], {
      default: 'ignore',
      description: "prefer: instances of the gateway's own zone, then datacenter, before all others."
    }),
    localThreshold: Share('With fewer healthy local instances than this, a part of the traffic spills over.', {
      default: '70%'
    })
  },
  strict
)

export type BalanceOptions = Static<typeof Balance>

declare module '../../../config/schema.ts' {
  interface MeshPolicy {
    balance: BalanceOptions | BalanceOptions['policy']
  }
}

export const balanceKey: Key = {
  name: 'balance',
  options: Either({ type: 'string' }, Names(balancePolicies), Balance, { description: 'How an instance is chosen.' }),
  levels: gatewayAndService,
  default: 'least-request',
  aliases: Object.fromEntries(
    ['strategy', 'loadBalancing', 'loadBalancer', 'lb'].map((name) => [name, 'write mesh.balance'])
  ),
  check: checkBalance
}

function checkBalance(balance: BalanceOptions | BalanceOptions['policy'], at: string, { report }: Checked): void {
  if (!report.sound(at)) return
  const written = typeof balance === 'object' ? balance : { policy: balance }
  const none = { hashOn: undefined, cookieTtl: undefined, maxLoad: undefined, tableSize: 2 }
  const { policy, hashOn, cookieTtl, maxLoad, tableSize } = { ...none, ...written }
  const hashes = policy === 'ring-hash' || policy === 'maglev'
  if (hashes && hashOn === undefined) report.fault(at, `${policy} needs hashOn: what of a call is hashed`)
  if (!hashes && hashOn !== undefined) {
    report.fault(`${at}/hashOn`, `${policy} hashes nothing; ring-hash and maglev do`, 'key')
  }
  if (cookieTtl !== undefined && !hashOn?.startsWith('cookie:')) {
    report.fault(`${at}/cookieTtl`, 'only a cookie that is hashed on can be given: hashOn: cookie:NAME', 'key')
  }
  if (!hashes && maxLoad !== undefined) {
    report.fault(`${at}/maxLoad`, `${policy} hashes nothing; ring-hash and maglev do`, 'key')
  } else if (maxLoad !== undefined && maxLoad < 1) {
    report.fault(`${at}/maxLoad`, 'below 100% not even an even load would fit')
  }
  if (!isPrime(tableSize)) report.fault(`${at}/tableSize`, `${tableSize} is not a prime; 65537 and 655373 are`)
}
