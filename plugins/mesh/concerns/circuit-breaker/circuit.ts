import { RollingWindow } from './rolling-window.ts'

export type CircuitState = 'closed' | 'half-open' | 'open'

export interface CircuitOptions {
  readonly errorRatio: number | false
  readonly slowRatio: number | false
  /** Failures in a row that open the circuit. */
  readonly consecutiveFailures?: number
  /** Half-open: successes in a row after which the ramp begins. */
  readonly consecutiveSuccesses: number
  readonly minRequests: number
  readonly window: number
  readonly openFor: number
  /** `openFor` doubles each time that the circuit opens before it has closed, up to this. */
  readonly maxOpenFor?: number
  readonly rampFor: number
}

interface CircuitStatus {
  readonly state: CircuitState
  /** Calls from which the ratios are computed: those of the window or, half-open, of the ramp. */
  readonly requests: number
  readonly errorRatio: number
  readonly slowRatio: number
  readonly failuresInRow: number
  /** Share of the calls that is admitted now. */
  readonly admitted: number
  /** Admitted calls without an outcome yet. */
  readonly inFlight: number
  /** Milliseconds until the first probe; 0 if the circuit is not open. */
  readonly retryInMs: number
}

const refused = -1

/**
 * Closed: all calls are admitted; failures in a row, or the ratio of failed or slow calls in the window, can open the
 * circuit. Open: none is admitted for `openFor`. Half-open: one probe at a time until `consecutiveSuccesses` of them have
 * succeeded. That begins the ramp, along which the admitted share grows from 0 to 1, and one call is admitted whenever
 * none is in flight. Failures on the ramp open the circuit again.
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
  #failuresInRow = 0
  #successesInRow = 0
  /** Times that the circuit has opened since it was closed. */
  #openings = 0

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
    if (this.#rampFrom === null) return 0
    const { rampFor } = this.#options
    return rampFor === 0 ? 1 : Math.min(1, (now - this.#rampFrom) / rampFor)
  }

  #advance(now: number): void {
    if (this.#state === 'open' && now >= this.#openUntil) {
      this.#rampFrom = null
      this.#requests = this.#failed = this.#slow = this.#failuresInRow = this.#successesInRow = 0
      this.#change('half-open', 'it was open for long enough')
    }
    if (this.#state === 'half-open' && this.#share(now) >= 1) {
      this.#window.clear()
      this.#openings = 0
      const ramped = this.#options.rampFor > 0
      this.#change('closed', ramped ? 'all calls succeeded while their share grew' : 'enough probes succeeded')
    }
  }

  /** Counts the outcome of an admitted call. */
  settle(ticket: number, failed: boolean, slow: boolean, now = this.#now()): void {
    if (!this.#leave(ticket)) return
    if (this.#state === 'half-open') this.#advance(now)
    this.#failuresInRow = failed ? this.#failuresInRow + 1 : 0
    if (this.#state === 'closed') {
      this.#window.add(now, failed, slow)
      const { total, failed: failures, slow: slows } = this.#window
      if (this.#hasFailedInRow()) this.#open(now, this.#reasonInRow())
      else if (total >= this.#options.minRequests) this.#judge(now, total, failures, slows)
      return
    }
    this.#requests++
    if (failed) this.#failed++
    if (slow) this.#slow++
    const { errorRatio, slowRatio, consecutiveFailures, consecutiveSuccesses } = this.#options
    const isFailure = failed && (errorRatio !== false || consecutiveFailures !== undefined)
    if (isFailure && this.#hasFailedInRow()) this.#open(now, this.#reasonInRow())
    else if (isFailure || (slow && slowRatio !== false)) {
      this.#successesInRow = 0
      this.#judge(now, this.#requests, this.#failed, this.#slow)
    } else if (++this.#successesInRow >= consecutiveSuccesses) {
      this.#rampFrom ??= now
      this.#advance(now)
    }
  }

  /** Before the ramp, one failure is enough. */
  #hasFailedInRow(): boolean {
    const { consecutiveFailures } = this.#options
    if (consecutiveFailures === undefined || this.#failuresInRow === 0) return false
    const isProbe = this.#state === 'half-open' && this.#rampFrom === null
    return isProbe || this.#failuresInRow >= consecutiveFailures
  }

  #reasonInRow(): string {
    const { consecutiveFailures } = this.#options
    if (this.#state === 'half-open' && this.#rampFrom === null) return 'a probe failed'
    return `${this.#failuresInRow} calls in a row failed (consecutiveFailures ${consecutiveFailures})`
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
    if (ratio === false || bad === 0) return false
    const isHalfOpen = this.#state === 'half-open'
    if (isHalfOpen && this.#rampFrom === null) return true
    // On the ramp there are few calls: require as many as the ratio needs to be meaningful.
    return bad / total >= ratio && (!isHalfOpen || total >= Math.min(this.#options.minRequests, 1 / ratio))
  }

  #open(now: number, reason: string): void {
    this.#generation++
    this.#inFlight = 0
    const { openFor, maxOpenFor = openFor } = this.#options
    this.#openUntil = now + Math.min(maxOpenFor, openFor * 2 ** this.#openings)
    this.#openings++
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
      failuresInRow: this.#failuresInRow,
      admitted: state === 'closed' ? 1 : state === 'open' ? 0 : this.#share(now),
      inFlight: this.#inFlight,
      retryInMs: this.retryInMs
    }
  }
}
