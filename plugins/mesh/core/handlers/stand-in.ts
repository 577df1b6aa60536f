import type { CallContext, CallRecord } from '../../../seam.ts'
import type { DispatchController, DispatchHandler } from '../types.ts'
import { StableHandler } from './stable-handler.ts'

/**
 * Stands between a caller and the calls that may answer it, one after the other: the caller sees one controller and
 * one record, which always tells of the newest call.
 */
export class StandIn extends StableHandler implements CallRecord {
  readonly #name: string
  #record: CallRecord | null = null
  /** Of the calls before. */
  #attempts = 0
  #sent = false
  #started = false

  /** `name` is that of the service that was asked for. */
  constructor(next: DispatchHandler, name: string) {
    super(next)
    this.#name = name
  }

  /** A call that may answer has begun. */
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
    // Not known is not safe.
    return this.#sent || (this.#record?.sent ?? true)
  }
}
