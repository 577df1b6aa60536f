import type { IncomingHttpHeaders } from 'node:http'
import { STATUS_CODES } from 'node:http'
import type { DispatchController, DispatchHandler, DispatchOptions } from '../types.ts'

/** Nobody is behind it: there is only an answer that can be cut short. */
class AnswerController implements DispatchController {
  aborted = false
  paused = false
  reason: Error | null = null
  rawHeaders: DispatchController['rawHeaders']

  abort(reason: Error): void {
    this.aborted = true
    this.reason = reason
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    this.paused = false
  }
}

/** Answers a dispatch on the spot, without a service; without a body where none may be (RFC 9110, 6.4.1). */
export function answerWith(
  { method }: DispatchOptions,
  handler: DispatchHandler,
  status: number,
  headers: IncomingHttpHeaders,
  body: string | Buffer
): boolean {
  const controller = new AnswerController()
  const bytes = Buffer.from(body)
  const bodyless = status === 204 || status === 304
  const steps = [
    () => handler.onRequestStart?.(controller, {}),
    () => {
      const whole = bodyless ? headers : { ...headers, 'content-length': String(bytes.length) }
      handler.onResponseStart?.(controller, status, whole, STATUS_CODES[status] ?? '')
    },
    () => !bodyless && method !== 'HEAD' && bytes.length > 0 && handler.onResponseData?.(controller, bytes),
    () => handler.onResponseEnd?.(controller, {})
  ]
  for (const step of steps) {
    step()
    if (controller.aborted) {
      handler.onResponseError?.(controller, controller.reason ?? new Error('aborted'))
      break
    }
  }
  return true
}
