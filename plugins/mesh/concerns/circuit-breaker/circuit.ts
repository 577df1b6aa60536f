import { RollingWindow } from './rolling-window.ts'

export type CircuitState = 'closed' | 'half-open' | 'open'

export interface CircuitOptions {
  readonly errorRatio: number | false
  readonly slowRatio: number | false
  readonly minRequests: number
  readonly window: number
  readonly openFor: number
  readonly rampFor: number
}

interface CircuitStatus {
  readonly state: CircuitState
  /** Calls from which the ratios are computed: those of the window or, half-open, of the ramp. */
  readonly requests: number
  readonly errorRatio: number
  readonly slowRatio: number
  /** Share of the calls that is admitted now. */
  readonly admitted: number
  /** Admitted calls without an outcome yet. */
  readonly inFlight: number
  /** Milliseconds until the first probe; 0 if the circuit is not open. */
  readonly retryInMs: number
}

const refused = -1

/**
 * Closed: all calls are admitted; the ratio of failed or slow ones in the window can open the circuit. Open: none is
 * admitted for `openFor`. Half-open: one probe at a time until one succeeds. That begins the ramp, along which the
 * admitted share grows from 0 to 1, and one call is admitted whenever none is in flight. Failures on the ramp open the
 * circuit again.
 *
 * Each admitted call gets a ticket, to be settled once. Outcomes of calls from before the circuit opened are ignored.
 */
export class Circuit {
  readonly #options: CircuitOptions
  readonly #now: () => number
  readonly #random: () => number
  readonly #onChange: (to: CircuitState, reason: string) => void
  readonly #window: RollingWindow
  #state: CircuitState = 'closed'
  /** Number of times that the circuit has opened; the ticket of calls that are admitted until it opens again. */
  #generation = 0
  #inFlight = 0
  #openUntil = 0
  #probedAt = 0
  /** Time at which the first probe succeeded; null before. */
  #rampFrom: number | null = null
  #requests = 0
  #failed = 0
  #slow = 0

  constructor(
    options: CircuitOptions,
    now: () => number,
    random: () => number,
    onChange: (to: CircuitState, reason: string) => void
  ) {
    this.#options = options
    this.#now = now
    this.#random = random
    this.#onChange = onChange
    this.#window = new RollingWindow(options.window)
  }

  /** Current state; it also changes by time alone, without calls. */
  get state(): CircuitState {
    if (this.#state !== 'closed') this.#advance(this.#now())
    return this.#state
  }

  /** Milliseconds for which the circuit stays open; 0 if it is not open. */
  get retryInMs(): number {
    return this.#state === 'open' ? Math.max(0, this.#openUntil - this.#now()) : 0
  }

  /** Returns a ticket, or a negative number if the call is refused. */
  admit(): number {
    if (this.#state !== 'closed' && !this.#admits(this.#now())) return refused
    this.#inFlight++
    return this.#generation
  }

  #admits(now: number): boolean {
    this.#advance(now)
    if (this.#state === 'closed') return true
    if (this.#state === 'open') return false
    // A probe without an outcome must not block further ones.
    if (this.#inFlight === 0 || now - this.#probedAt >= this.#options.openFor) {
      this.#probedAt = now
      return true
    }
    return this.#rampFrom !== null && this.#random() < this.#share(now)
  }

  #share(now: number): number {
    return this.#rampFrom === null ? 0 : Math.min(1, (now - this.#rampFrom) / this.#options.rampFor)
  }

  #advance(now: number): void {
    if (this.#state === 'open' && now >= this.#openUntil) {
      this.#rampFrom = null
      this.#requests = this.#failed = this.#slow = 0
      this.#change('half-open', 'it was open for long enough')
    }
    if (this.#state === 'half-open' && this.#share(now) >= 1) {
      this.#window.clear()
      this.#change('closed', 'all calls succeeded while their share grew')
    }
  }

  /** Counts the outcome of an admitted call. */
  settle(ticket: number, failed: boolean, slow: boolean, now = this.#now()): void {
    if (!this.#leave(ticket)) return
    if (this.#state === 'half-open') this.#advance(now)
    if (this.#state === 'closed') {
      this.#window.add(now, failed, slow)
      const { total, failed: failures, slow: slows } = this.#window
      if (total >= this.#options.minRequests) this.#judge(now, total, failures, slows)
      return
    }
    this.#requests++
    if (failed) this.#failed++
    if (slow) this.#slow++
    const bad = (failed && this.#options.errorRatio !== false) || (slow && this.#options.slowRatio !== false)
    if (bad) this.#judge(now, this.#requests, this.#failed, this.#slow)
    else this.#rampFrom ??= now
  }

  /** Ends an admitted call without counting it, such as one whose caller disconnected. */
  forget(ticket: number): void {
    this.#leave(ticket)
  }

  #leave(ticket: number): boolean {
    if (ticket !== this.#generation) return false
    this.#inFlight--
    return true
  }

  #judge(now: number, total: number, failed: number, slow: number): void {
    const { errorRatio, slowRatio } = this.#options
    if (this.#exceeds(failed, total, errorRatio)) this.#open(now, this.#reason(failed, total, 'failed', 'errorRatio'))
    else if (this.#exceeds(slow, total, slowRatio)) this.#open(now, this.#reason(slow, total, 'were slow', 'slowRatio'))
  }

  #reason(bad: number, total: number, how: string, ratio: 'errorRatio' | 'slowRatio'): string {
    const within = this.#state === 'closed' ? `in the last ${this.#options.window / 1000} s` : 'since it was half-open'
    return `${bad} of ${total} calls ${how} ${within} (${ratio} ${Math.round(Number(this.#options[ratio]) * 1000) / 10}%)`
  }

  #exceeds(bad: number, total: number, ratio: number | false): boolean {
    if (ratio === false || bad === 0 || bad / total < ratio) return false
    // On the ramp there are few calls: require as many as the ratio needs to be meaningful, unless no probe has
    // succeeded.
    return (
      this.#state === 'closed' || this.#rampFrom === null || total >= Math.min(this.#options.minRequests, 1 / ratio)
    )
  }

  #open(now: number, reason: string): void {
    this.#generation++
    this.#inFlight = 0
    this.#openUntil = now + this.#options.openFor
    this.#change('open', reason)
  }

  #change(to: CircuitState, reason: string): void {
    this.#state = to
    this.#onChange(to, reason)
  }

  status(): CircuitStatus {
    const { state } = this
    const now = this.#now()
    this.#window.advance(now)
    const { total, failed, slow } =
      state === 'half-open' ? { total: this.#requests, failed: this.#failed, slow: this.#slow } : this.#window
    return {
      state,
      requests: total,
      errorRatio: total === 0 ? 0 : failed / total,
      slowRatio: total === 0 ? 0 : slow / total,
      admitted: state === 'closed' ? 1 : state === 'open' ? 0 : this.#share(now),
      inFlight: this.#inFlight,
      retryInMs: this.retryInMs
    }
  }
}
