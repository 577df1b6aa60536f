import { Readable } from 'node:stream'

/** A body that the test destroys, also while it has no reader. */
export function breakingBody() {
  const body = new Readable({ read() {} })
  body.push('half')
  return { body, breakOff: () => void body.destroy(Object.assign(new Error('left'), { code: 'ECONNRESET' })) }
}
