// Steady load on a gateway: workers that send requests in sequence and record failures.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Client, ReceivedResponse } from './gateway.ts'

export interface Failure {
  method: 'GET' | 'POST'
  path: string
  /** Since the start, in milliseconds. */
  at: number
  /** Status and body, or the error of the connection to the gateway. */
  what: string
}

export interface Tally {
  sent: number
  failures: Failure[]
  /** Number of responses of each instance. */
  by: Record<string, number>
}

export interface LoadOptions {
  concurrency: number
  pauseMs?: number
  /** One request in this many is a POST. */
  postEvery?: number
}

export function steadyLoad(
  client: Client,
  paths: string[],
  { concurrency, pauseMs = 0, postEvery = 0 }: LoadOptions
): { readonly tally: Tally; stop(): Promise<Tally> } {
  const tally: Tally = { sent: 0, failures: [], by: {} }
  const started = performance.now()
  let going = true
  const worker = async () => {
    while (going) {
      const index = tally.sent++
      const path = paths[index % paths.length]!
      const method = postEvery > 0 && index % postEvery === 0 ? 'POST' : 'GET'
      const body = `order ${index}`
      const response = await client
        .send(path, method === 'POST' ? { method, body } : {})
        .catch((error: Error) => ({ status: 0, instance: '', text: String(error) }) as ReceivedResponse)
      const whole = method === 'GET' || response.text.includes(body)
      if (response.status === 200 && whole) tally.by[response.instance] = (tally.by[response.instance] ?? 0) + 1
      else {
        const at = Math.round(performance.now() - started)
        tally.failures.push({ method, path, at, what: `${response.status} ${response.text}` })
      }
      if (pauseMs > 0) await sleep(pauseMs)
    }
  }
  const done = Promise.all(Array.from({ length: concurrency }, worker))
  return {
    tally,
    async stop() {
      going = false
      await done
      return tally
    }
  }
}
