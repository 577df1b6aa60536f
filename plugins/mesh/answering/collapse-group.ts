import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatch, DispatchController, DispatchHandler, DispatchOptions } from '../types.ts'
import { Outlet } from './outlet.ts'
import { StandIn } from './stand-in.ts'
import { isBodiless } from './static-answer.ts'

/** How long those who came later wait for the end of an answer whose length is not known. */
const collectMs = 1000

/** One caller of a shared call, with a controller and a pace of its own. */
class Member extends StandIn {
  readonly opts: DispatchOptions
  readonly outlet: Outlet
  /** Gets the answer as it comes; else it waits for the end. */
  given = false

  constructor(next: DispatchHandler, opts: DispatchOptions, group: Group) {
    super(next)
    this.opts = opts
    this.outlet = new Outlet(
      this,
      () => group.pace(),
      (reason) => group.leave(this, reason)
    )
  }
}

export interface GroupContext {
  readonly dispatch: Dispatch
  /** Whether the answer to `asked` may be given to `other` too. */
  readonly fits: (headers: IncomingHttpHeaders, asked: DispatchOptions, other: DispatchOptions) => boolean
  readonly maxBody: number
  /** One more was given the answer to another's request. */
  readonly count: () => void
}

interface Head {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string | undefined
}

/**
 * Identical requests that share one call. Those who came later are given the answer only where they are certain to get
 * all of it: its length is known and within the bound, so that it can wait in memory for a slow client while the others
 * run on; or, length unknown, it has come whole. Else each makes a call of its own, and has lost some time. The call
 * goes on while anyone wants it.
 */
export class Group implements DispatchHandler {
  readonly #context: GroupContext
  readonly #onClosed: () => void
  #open = true
  #members: readonly Member[] = []
  /** The request that was sent. */
  #asked!: Member
  #controller: DispatchController | null = null
  #paused = false
  /** What the call began with. */
  #started: unknown = null
  #head: Head | null = null
  /** What those who wait for the end will be given. */
  #collected: Buffer[] | null = null
  #bytes = 0
  #timer: NodeJS.Timeout | undefined

  /** `onClosed` is called when no more may join. */
  constructor(context: GroupContext, onClosed: () => void) {
    this.#context = context
    this.#onClosed = onClosed
  }

  begin(opts: DispatchOptions, handler: DispatchHandler): boolean {
    this.#asked = new Member(handler, opts, this)
    this.#members = [this.#asked]
    try {
      return this.#context.dispatch(opts, this)
    } catch (error) {
      this.#close()
      throw error
    }
  }

  join(opts: DispatchOptions, handler: DispatchHandler): void {
    const member = new Member(handler, opts, this)
    this.#members = [...this.#members, member]
    this.pace()
    member.outlet.start(this.#started)
  }

  leave(member: Member, reason: Error): void {
    this.#members = this.#members.filter((other) => other !== member)
    const [first] = this.#members
    if (first === undefined) {
      this.#close()
      this.#controller?.abort(reason)
    } else {
      if (this.#collected !== null && !this.#members.some(({ given }) => given)) this.#give(first, this.#collected)
      if (this.#collected !== null && this.#members.every(({ given }) => given)) this.#stopCollecting()
      this.pace()
    }
  }

  /** Nobody is held up by another; one who is alone may hold up the service. */
  pace(): void {
    const [first] = this.#members
    const paused = this.#members.length === 1 && first!.outlet.paused
    if (paused === this.#paused) return
    this.#paused = paused
    if (paused) this.#controller?.pause()
    else this.#controller?.resume()
  }

  onRequestStart(controller: DispatchController, context: unknown): void {
    this.#controller = controller
    this.#started = context
    if (this.#members.length === 0) controller.abort(new Error('nobody waits for the answer any more'))
    else if (this.#paused) controller.pause()
    for (const { outlet } of this.#members) outlet.start(context)
  }

  onResponseStart(controller: DispatchController, status: number, headers: IncomingHttpHeaders, text?: string): void {
    for (const { outlet } of this.#members) outlet.rawHeaders = controller.rawHeaders
    if (status < 200) {
      this.#members[0]?.outlet.head(status, headers, text)
      return
    }
    this.#close()
    this.#head = { status, headers, text }
    const { fits, maxBody } = this.#context
    const asked = this.#asked
    const bodiless = asked.opts.method === 'HEAD' || isBodiless(status)
    const length = bodiless ? 0 : Number(headers['content-length'] ?? -1)
    const all = this.#members
    // Who asked may have left: then it is not for just anybody who is first now.
    const fitting = all.filter((member) => member === asked || fits(headers, asked.opts, member.opts))
    const shared = length > maxBody ? fitting.slice(0, 1) : fitting
    const [first, ...sharers] = shared
    this.#members = shared
    if (length < 0 && sharers.length > 0) {
      this.#collected = []
      this.#timer = setTimeout(() => this.#release(), collectMs)
    }
    if (first === undefined) controller.abort(new Error('the answer is for nobody who is still there'))
    else this.#give(first, [])
    if (length >= 0) for (const sharer of sharers) this.#give(sharer, [])
    const served = new Set(shared)
    for (const other of all) if (!served.has(other)) this.#alone(other)
    this.pace()
  }

  onResponseData(_controller: DispatchController, chunk: Buffer): void {
    for (const { given, outlet } of this.#members) if (given) outlet.data(chunk)
    // Only now: who was given what was collected until here gets the chunk above.
    if (this.#collected === null) return
    this.#collected.push(chunk)
    this.#bytes += chunk.length
    if (this.#bytes > this.#context.maxBody) this.#release()
  }

  onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    const collected = this.#collected ?? []
    this.#stopCollecting()
    for (const member of this.#members) {
      member.outlet.rawTrailers = controller.rawTrailers
      if (!member.given) this.#give(member, collected)
      member.outlet.end(trailers ?? {})
    }
  }

  onResponseError(_controller: DispatchController, error: Error): void {
    this.#close()
    this.#stopCollecting()
    const [first, ...others] = this.#members
    this.#members = []
    first?.outlet.fail(error)
    for (const { given, outlet } of others) {
      if (!given) this.#context.count()
      outlet.fail(error)
    }
  }

  #give(member: Member, chunks: readonly Buffer[]): void {
    if (member.given || member.over) return
    member.given = true
    if (member !== this.#asked) this.#context.count()
    const { status, headers, text } = this.#head!
    member.outlet.head(status, headers, text)
    for (const chunk of chunks) member.outlet.data(chunk)
  }

  /** Those who wait for the end shall wait no longer. */
  #release(): void {
    this.#stopCollecting()
    const waiting = this.#members.filter(({ given }) => !given)
    this.#members = this.#members.filter(({ given }) => given)
    for (const member of waiting) this.#alone(member)
    this.pace()
  }

  #stopCollecting(): void {
    clearTimeout(this.#timer)
    this.#collected = null
  }

  #alone(member: Member): void {
    if (member.over) return
    member.letGo()
    try {
      this.#context.dispatch(member.opts, member)
    } catch (error) {
      member.onResponseError(member, error as Error)
    }
  }

  #close(): void {
    if (this.#open) this.#onClosed()
    this.#open = false
  }
}
