import type { CallContext, CallRecord } from '../../../seam.ts'
import type { DispatchController, DispatchHandler } from '../types.ts'
import { StableHandler } from './stable-handler.ts'

/**
 * Connects a caller to successive calls, any of which may provide its response: the caller sees one controller, and one
 * record, which is always that of the newest call.
 */
export class SwitchingHandler extends StableHandler implements CallRecord {
  readonly #name: string
  #record: CallRecord | null = null
  /** Attempts of earlier calls. */
  #attempts = 0
  #sent = false
  #started = false

  /** Takes the name of the service that the caller named. */
  constructor(next: DispatchHandler, name: string) {
    super(next)
    this.#name = name
  }

  /** Switches to a call that has begun; the caller's own `onRequestStart` runs once. */
  override onRequestStart(controller: DispatchController, context: unknown): void {
    super.onRequestStart(controller, context)
    const record = (context as CallContext | null)?.call ?? null
    if (record !== null && record !== this.#record) {
      this.#attempts += this.#record?.attempts ?? 0
      this.#sent ||= this.#record?.sent ?? false
      this.#record = record
    }
    if (this.#started || this.over) return
    this.#started = true
    this.next.onRequestStart?.(this, { call: this })
  }

  get service(): string {
    return this.#record?.service ?? this.#name
  }

  get instance(): string | null {
    return this.#record?.instance ?? null
  }

  get substitute(): string | null {
    return this.#record?.substitute ?? null
  }

  get substituteKind(): string | null {
    return this.#record?.substituteKind ?? null
  }

  get attempts(): number {
    return this.#attempts + (this.#record?.attempts ?? 0)
  }

  get sent(): boolean {
    // Without a record, assume that the request was sent: repeating it would not be safe.
    return this.#sent || (this.#record?.sent ?? true)
  }
}
