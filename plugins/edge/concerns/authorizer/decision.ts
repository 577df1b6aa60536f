/** Checks what an authorizer has returned: its author may use JavaScript, and a wrong value must not let a request in. */

import { kindOf } from '../../../thrown.ts'
import type { Accepted, RefusedByFunction } from '../../../user-function.ts'
import { fieldValue } from '../../bridge/response-fields.ts'

type Fault = (message: string) => Error

const isTexts = (value: unknown): boolean =>
  value === undefined || (Array.isArray(value) && value.every((each) => typeof each === 'string'))

/** Returns the decision; null for none. `names` are the headers that it may set, in lower case. */
export function decisionOf(
  value: unknown,
  names: ReadonlySet<string>,
  fault: Fault
): Accepted | RefusedByFunction | null {
  if (value === undefined || value === null) return null
  const given = value as { consumer?: unknown; refuse?: unknown }
  const has = (key: string) => typeof value === 'object' && Reflect.get(value, key) !== undefined
  if (has('consumer') === has('refuse')) {
    throw fault(`expected an object with either consumer or refuse, undefined or null, found ${kindOf(value)}`)
  }
  if (has('refuse')) {
    const { refuse, message, challenge } = value as RefusedByFunction
    if (!(Number.isInteger(refuse) && refuse >= 400 && refuse < 500)) throw fault('refuse is no status from 400 to 499')
    if (message !== undefined && typeof message !== 'string') throw fault('message is no text')
    if (challenge !== undefined && !(typeof challenge === 'string' && fieldValue.test(challenge))) {
      throw fault('challenge is no value of a header')
    }
    return value as RefusedByFunction
  }
  checkConsumer(given.consumer, fault)
  checkHeaders((value as Accepted).headers, names, fault)
  return value as Accepted
}

function checkConsumer(consumer: unknown, fault: Fault): void {
  if (consumer === null) return
  const isName = (text: unknown) => typeof text === 'string' && text !== ''
  if (typeof consumer === 'string' ? isName(consumer) : isName((consumer as { id?: unknown }).id)) {
    const { groups, tags } = consumer as { groups?: unknown; tags?: unknown }
    if (isTexts(groups) && isTexts(tags)) return
    throw fault('groups or tags of the consumer are no lists of texts')
  }
  throw fault('consumer is neither a name nor an object with an id')
}

function checkHeaders(headers: unknown, names: ReadonlySet<string>, fault: Fault): void {
  if (headers === undefined) return
  if (typeof headers !== 'object' || headers === null) throw fault('headers is no object')
  for (const [name, value] of Object.entries(headers)) {
    if (!names.has(name.toLowerCase())) throw fault(`header ${name} is not in authorizer.headers`)
    if (!(typeof value === 'string' || isTexts(value))) throw fault(`header ${name} is no text`)
  }
}
