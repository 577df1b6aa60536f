/** Parts of a chaos test: a handler that checks its contract, and a search for leaks. */
import { createHook } from 'node:async_hooks'
import type { DispatchController } from '../../../plugins/mesh/core/types.ts'
import { Recorder } from './mesh.ts'

/** Records calls against the contract: a second start, a callback after the end, a body without a header section. */
export class Watched extends Recorder {
  readonly wrong: string[] = []
  #ends = 0

  override onRequestStart(controller: DispatchController): void {
    if (this.controller !== undefined) this.wrong.push('a second start')
    super.onRequestStart(controller)
  }

  override onRequestUpgrade(): void {
    if (this.#ends++ > 0) this.wrong.push(`upgrade after ${this.events}`)
    super.onRequestUpgrade()
  }

  override onResponseStart(controller: DispatchController, status: number): void {
    if (this.#ends > 0 || this.status >= 200) this.wrong.push(`${status} after ${this.events}`)
    super.onResponseStart(controller, status)
  }

  override onResponseData(controller: DispatchController, chunk: Buffer): void {
    if (this.#ends > 0 || this.status < 200) this.wrong.push(`data after ${this.events}`)
    super.onResponseData(controller, chunk)
  }

  override onResponseEnd(): void {
    if (this.#ends++ > 0) this.wrong.push(`end after ${this.events}`)
    super.onResponseEnd()
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    if (this.#ends++ > 0) this.wrong.push(`error after ${this.events}`)
    super.onResponseError(controller, error)
  }
}

/** The active timers that code under `folder` has created, unref'd ones too, by place of creation. */
export function watchTimers(folder: string) {
  const live = new Map<number, string>()
  const hook = createHook({
    init(id, type) {
      if (type !== 'Timeout') return
      const place = new Error().stack?.split('\n').find((line) => line.includes(folder))
      if (place !== undefined) live.set(id, place.slice(place.indexOf(folder)))
    },
    destroy: (id) => void live.delete(id)
  }).enable()
  return { live: () => [...live.values()], end: () => hook.disable() }
}
