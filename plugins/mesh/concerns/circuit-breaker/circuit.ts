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

export interface CircuitStatus {
  readonly state: CircuitState
  /** Answers that the ratios are taken of: those of the window, or of the ramp. */
  readonly requests: number
  readonly errorRatio: number
  readonly slowRatio: number
  /** Share of the attempts that are let through just now. */
  readonly admitted: number
  /** Calls that passed and are not answered. */
  readonly inFlight: number
  /** When open: until the first probe. */
  readonly retryInMs: number
}

const refused = -1

/**
 * Closed: all pass, and a ratio of failed or slow answers within the window opens it. Open: none pass for a while.
 * Half-open: one probe at a time until one is answered well, which begins the ramp; along it the share of attempts
 * that pass grows from 0 to 1, and never less than one is under way. Bad answers on the ramp open it again.
 *
 * Each attempt that passes gets a ticket, to be settled once. Outcomes of attempts from before it opened are ignored.
 */
export class Circuit {
  readonly #options: CircuitOptions
  readonly #now: () => number
  readonly #random: () => number
  readonly #onChange: (to: CircuitState, reason: string) => void
  readonly #window: RollingWindow
  #state: CircuitState = 'closed'
  /** Number of times that it has opened: the ticket of attempts that pass until it opens again. */
  #generation = 0
  #inFlight = 0
  #openUntil = 0
  #probedAt = 0
  /** When the first probe was answered well; null while none was. */
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

  /** State by the clock, which changes it also while no attempts come. */
  get state(): CircuitState {
    if (this.#state !== 'closed') this.#advance(this.#now())
    return this.#state
  }

  /** Milliseconds for which it stays open; 0 if it is not open. */
  get retryInMs(): number {
    return this.#state === 'open' ? Math.max(0, this.#openUntil - this.#now()) : 0
  }

  /** Returns a ticket, or a negative number if the attempt must not pass. */
  admit(): number {
    if (this.#state !== 'closed' && !this.#lets(this.#now())) return refused
    this.#inFlight++
    return this.#generation
  }

  #lets(now: number): boolean {
    this.#advance(now)
    if (this.#state === 'closed') return true
    if (this.#state === 'open') return false
    // A probe that is never answered must not be the last one.
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

  /** Counts the outcome of an attempt that passed. */
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

  /** Takes an attempt back that passed and says nothing of the service, such as one whose caller left. */
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
    // On the ramp few answers are there: as many as the ratio takes to mean something, unless none was good.
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
