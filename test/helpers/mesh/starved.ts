/**
 * A mesh in a process of its own, under the limit of descriptors that its parent has set. Calls two services' instances
 * while no descriptor is left, then again when there are some, and writes what it saw to stdout.
 */
import { closeSync, openSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../../../plugins/mesh/core/types.ts'
import { checkOptions, outlierOptions } from './health.ts'
import { meterStub, retryOptions, service } from './mesh.ts'
import { policyOf } from './policy.ts'
import { startMesh } from './start-mesh.ts'

/** `cold`: no call precedes, so not even the resolver's files are open. */
const [mode, ...instances] = process.argv.slice(2)
const cold = mode === 'cold'
const { meter, counts } = meterStub()
const lines: { level: string; message: string; reason?: unknown }[] = []
const to = (level: string) => (fields: object, message: string) => void lines.push({ level, message, ...fields })
const log: Logger = { info: to('info'), warn: to('warn'), error: to('error') }

const on = ['connect-failure', 'refused-stream', 'reset', 'gateway-error', '5xx'] as const
const policy = {
  ...policyOf({
    circuitBreaker: { errorRatio: '10%', minRequests: 2 }
  }),
  outlierDetection: outlierOptions({ consecutive5xx: 1, consecutiveGatewayFailures: 1, maxEjectionPercent: '100%' }),
  healthCheck: cold ? (false as const) : checkOptions({ interval: '20ms', unhealthyThreshold: 1 }),
  retry: { ...retryOptions, on: [...on] }
}
const mesh = startMesh({ services: { orders: service('orders', instances, policy) } }, { meter, log })
await mesh.ready()

async function call(): Promise<string> {
  try {
    const { statusCode, body } = await mesh.request({ origin: 'http://orders.mesh', path: '/', method: 'GET' })
    await body.dump()
    return String(statusCode)
  } catch (error) {
    return String((error as { code?: string }).code)
  }
}

const state = () => {
  const { instances, concerns } = mesh.status()[0]!
  return { available: instances.map(({ available }) => available), circuit: concerns['circuit-breaker'] }
}

if (!cold) await call()
// An idle connection would need no new descriptor.
await sleep(50)
const taken: number[] = []
const fill = () => {
  try {
    for (;;) taken.push(openSync('/dev/null', 'r'))
  } catch {}
}
const failures: string[] = []
for (let i = 0; i < 50 && failures.length < 6; i++) {
  // An active check may free its descriptor at any time: such a call succeeds, and does not count.
  fill()
  const outcome = await call()
  if (outcome !== '200') failures.push(outcome)
}
await sleep(100)
const starved = state()
for (const descriptor of taken) closeSync(descriptor)
const after = await call()
const logged = lines.filter(({ reason }) => reason === 'descriptors')
writeSync(1, `${JSON.stringify({ failures, starved, after, logged, counts, taken: taken.length })}\n`)
process.exit(0)
