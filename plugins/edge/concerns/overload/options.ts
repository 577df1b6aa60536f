/** `edge.overload` and `edge.shedPriority`: when the gateway sheds load, and on which routes first. */
import type { Static } from 'typebox'
import type { Checked, Key } from '../../../../config/concern.ts'
import { gatewayAndRoute } from '../../../../config/concern.ts'
import { Count, Duration, Mode, Names, orOff, Share, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

const Overload = Type.Object(
  {
    eventLoopDelay: orOff(
      Duration('Delay of timers. Requests are refused once three timers in a row are later than this.'),
      { default: '1s' }
    ),
    memory: orOff(
      Share(
        "Used share of memory, of that of the container (or machine) or of V8's heap, whichever is greater. Requests are refused once three measurements in a row, half a second apart, exceed it."
      ),
      { default: false }
    ),
    requests: orOff(Count('Requests in flight in this process, without WebSockets; more are refused.'), {
      default: false
    }),
    mode: Mode
  },
  {
    ...strict,
    default: {},
    description:
      'Load shedding: while the process itself is overloaded, requests get 503 with `Retry-After`, so that those in flight complete.'
  }
)

/** Loaded: durations in milliseconds, the share as a fraction. */
export type OverloadOptions = Static<typeof Overload>

export const priorities = ['low', 'normal', 'high'] as const
export type Priority = (typeof priorities)[number]

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    overload?: OverloadOptions | false
    shedPriority?: Priority
  }
}

/** Returns whether no limit is set, so that nothing is refused by priority. */
const isOff = (options: OverloadOptions | false | undefined) =>
  !options || (options.eventLoopDelay === false && options.memory === false && options.requests === false)

function checkOverload(options: unknown, at: string, { report }: Checked): void {
  if ((options as OverloadOptions | false) && (options as OverloadOptions).memory === 0)
    report.fault(`${at}/memory`, 'refuses every request; write a share such as 90%, or false')
}

function checkPriority(_priority: unknown, at: string, { data, report }: Checked): void {
  if (report.usable('/edge') && report.sound('/edge/overload') && isOff(data.edge.overload))
    report.fault(at, 'has no effect, since edge.overload is off', 'key')
}

export const keys: readonly Key[] = [
  {
    name: 'overload',
    options: orOff(Overload),
    levels: ['gateway'],
    default: {},
    protects: false,
    check: checkOverload
  },
  {
    name: 'shedPriority',
    options: Names(priorities, {
      description:
        'Order in which `overload` refuses requests: those of `low` routes from 90 % of each limit on, those of `high` routes from 110 %. Default: normal.'
    }),
    levels: [...gatewayAndRoute, 'consumer'],
    protects: false,
    check: checkPriority
  }
]
