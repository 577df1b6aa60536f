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

const balancePolicies = [
  'round-robin', 'least-request', 'random', 'ring-hash', 'maglev', 'peak-ewma'
] as const // biome-ignore format: a table

export const Balance = Type.Object(
  {
    policy: Names(balancePolicies, { default: 'least-request', description: 'Policy by which an instance is chosen.' }),
    choices: Count('least-request: how many instances are compared.', { default: 2, minimum: 2, maximum: 16 }),
    hashOn: Type.Optional(HashOn),
    cookieTtl: Type.Optional(
      DurationOrZero(
        'With hashOn: cookie:NAME, sets the cookie, with this lifetime, for callers without it; 0s: a session cookie.'
      )
    ),
    ringSize: Count('ring-hash: fewest points on the ring.', { default: 1024, maximum: 1_048_576 }),
    tableSize: Count('maglev: size of the table; must be a prime.', { default: 65_537, maximum: 5_000_011 }),
    maxLoad: Type.Optional(
      Percent('Hashing with bounded loads: most requests of an instance as a share of the mean, such as 150%.')
    ),
    decay: Duration('peak-ewma: time in which a measured latency decays.', { default: '10s' }),
    slowStart: Type.Optional(
      Duration('Time in which the weight of a new or recovered instance grows to its full value.')
    ),
    panicThreshold: Share(
      'If fewer instances than this are available, all are used whatever their health (panic). 0%: never.',
      {
        default: '50%'
      }
    ),
    locality: Names(['ignore', 'prefer'], {
      default: 'ignore',
      description: "prefer: instances in the gateway's own zone first, then those in its datacenter, then all others."
    }),
    localThreshold: Share('If fewer local instances than this are available, part of the traffic goes to others.', {
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
  options: Either({ type: 'string' }, Names(balancePolicies), Balance, {
    description: 'Policy by which an instance is chosen, or its name alone.'
  }),
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
  if (hashes && hashOn === undefined)
    report.fault(at, `${policy} needs hashOn, the part of a call that is hashed, such as ip or header:NAME`)
  if (!hashes && hashOn !== undefined) {
    report.fault(`${at}/hashOn`, `only ring-hash and maglev have hashOn; ${policy} does not hash`, 'key')
  }
  if (cookieTtl !== undefined && !hashOn?.startsWith('cookie:')) {
    report.fault(`${at}/cookieTtl`, 'needs hashOn: cookie:NAME', 'key')
  }
  if (!hashes && maxLoad !== undefined) {
    report.fault(`${at}/maxLoad`, `only ring-hash and maglev have maxLoad; ${policy} does not hash`, 'key')
  } else if (maxLoad !== undefined && maxLoad < 1) {
    report.fault(`${at}/maxLoad`, 'must be at least 100%: less than the mean load cannot hold for all instances')
  }
  if (!isPrime(tableSize))
    report.fault(`${at}/tableSize`, `${tableSize} is not a prime; 65537 and 655373, for example, are`)
}
