/** `mesh.fallback`. */
import type { Static } from 'typebox'
import type { Checked, Key } from '../../../../config/concern.ts'
import { everyLevel } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { Count, Duration, Either, Names, orOff, SizeOrZero, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { token } from '../../../http-syntax.ts'
import { checkOtherService } from '../../core/check-service.ts'
import { checkExcluded, ExcludeHeaders } from '../../core/sharing/exclude-headers.ts'

const fallbackConditions = [
  'no-instance', 'circuit-open', 'overloaded', 'connect-failure', 'reset', 'timeout', '5xx'
] as const // biome-ignore format: a table

const status = Type.Integer({ minimum: 400, maximum: 599 })

export const Fallback = Type.Object(
  {
    on: Type.Array(Either({ type: 'integer' }, status, Names(fallbackConditions)), {
      minItems: 1,
      default: ['no-instance', 'circuit-open', 'overloaded', 'connect-failure', 'reset', 'timeout'],
      description:
        'Failures and statuses for which the fallback applies. overloaded: a cap or limit of the gateway is reached.'
    }),
    service: Type.Optional(Text),
    stale: Type.Optional(
      Type.Object(
        {
          maxAge: Duration('Greatest age of a stored response that is used.', { default: '10m' }),
          maxEntries: Count('Most stored responses.', { default: 1000 }),
          maxBody: SizeOrZero('Largest body of a stored response.', { default: '64kb' }),
          excludeHeaders: ExcludeHeaders
        },
        {
          ...strict,
          description:
            'The last good response to an identical GET; a `public` response is used for every GET of the resource that `Vary` allows.'
        }
      )
    ),
    status: Type.Optional(Type.Integer({ minimum: 200, maximum: 599, description: 'Status of a static response.' })),
    headers: Type.Optional(Type.Record(Type.String(), Type.String())),
    body: Type.Optional(Type.String())
  },
  strict
)

export type FallbackOptions = Static<typeof Fallback>

declare module '../../../../config/schema.ts' {
  interface MeshPolicy {
    fallback?: FallbackOptions[] | false
  }
}

export const fallbackKey: Key = {
  name: 'fallback',
  options: orOff(Type.Array(Fallback, { minItems: 1 }), {
    description: 'Responses in place of a failure; the first entry that applies is used.'
  }),
  levels: everyLevel,
  otherServices: (entries: FallbackOptions[]) => entries.flatMap(({ service }) => service ?? []),
  check(entries: FallbackOptions[], at, checked, { service }) {
    if (!checked.report.sound(at)) return
    for (const [index, entry] of entries.entries()) checkEntry(pointer(at, index), entry, service, checked)
  }
}

function checkEntry(at: string, entry: FallbackOptions, service: string | null, checked: Checked): void {
  const { report } = checked
  const kinds = (['service', 'stale', 'status'] as const).filter((kind) => entry[kind] !== undefined)
  if (kinds.length !== 1) {
    const found = kinds.length === 0 ? 'none of them' : kinds.join(' and ')
    report.fault(at, `a fallback needs exactly one of service, stale and status; this one has ${found}`)
  }
  for (const part of ['headers', 'body'] as const) {
    if (entry[part] === undefined || entry.status !== undefined) continue
    report.fault(`${at}/${part}`, `only a static response has ${part}: add "status"`, 'key')
  }
  if (entry.stale !== undefined) checkExcluded(`${at}/stale/excludeHeaders`, entry.stale.excludeHeaders, report)
  checkAnswer(at, entry, report)
  if (entry.service !== undefined) checkOtherService(`${at}/service`, entry.service, service, checked)
}

/** Checks that the response can be written; else it would fail when the fallback is needed. */
function checkAnswer(at: string, { status, headers = {}, body }: FallbackOptions, report: Checked['report']): void {
  for (const [name, value] of Object.entries(headers)) {
    const place = pointer(at, 'headers', name)
    if (!token.test(name)) report.fault(place, `"${name}" is not a valid header name`, 'key')
    else if (!/^[\t\x20-\x7e\x80-\xff]*$/.test(value)) {
      report.fault(place, 'a header value cannot contain line breaks, or characters beyond Latin-1')
    }
  }
  if ((status === 204 || status === 304) && body)
    report.fault(`${at}/body`, `a response with status ${status} cannot have a body`, 'key')
}
