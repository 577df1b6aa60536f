import type { IncomingHttpHeaders } from 'node:http'
import { ResponseWriter } from '../../core/handlers/response-writer.ts'
import { isBodiless } from '../../core/handlers/static-response.ts'
import { SwitchingHandler } from '../../core/handlers/switching-handler.ts'
import type { Dispatch, DispatchController, DispatchHandler, DispatchOptions } from '../../core/types.ts'
import { Members } from './members.ts'

/** Milliseconds for which members that joined later wait for the end of a response without a length. */
const collectMs = 1000

/** One caller of a shared call, with its own controller and pace. */
class Member extends SwitchingHandler {
  readonly opts: DispatchOptions
  readonly writer: ResponseWriter
  /** True if the member gets the response as it arrives; else it waits for the end. */
  given = false
  isGone = false
  /** True if the response is that to another member's request. */
  isShared = false
  readonly #group: Group

  constructor(next: DispatchHandler, opts: DispatchOptions, group: Group) {
    super(next, group.service)
    this.opts = opts
    this.#group = group
    this.writer = new ResponseWriter(
      this,
      () => group.pace(),
      (reason) => group.leave(this, reason)
    )
  }

  /** Prefers the substitute of the call, such as a fallback, to `shared`. */
  override get substitute(): string | null {
    return super.substitute ?? (this.isShared ? 'shared' : null)
  }

  /** Contains errors that the caller throws: the other members must get their end, too. */
  override onResponseError(controller: DispatchController, error: Error): void {
    try {
      super.onResponseError(controller, error)
    } catch (thrown) {
      this.#group.report(thrown as Error, this.opts.caller?.id)
    }
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    try {
      super.onResponseEnd(controller, trailers)
    } catch (thrown) {
      this.#group.report(thrown as Error, this.opts.caller?.id)
    }
  }
}

export interface GroupContext {
  /** Name of the service. */
  readonly service: string
  readonly dispatch: Dispatch
  /** Returns a predicate for other requests that may share the response to `asked`; null if none may. */
  readonly sharing: (
    status: number,
    headers: IncomingHttpHeaders,
    asked: DispatchOptions
  ) => ((other: DispatchOptions) => boolean) | null
  readonly maxBody: number
  /** Counts a call that got the response to another one. */
  readonly count: () => void
  /** Logs an error that a caller threw at the end of its call. */
  readonly report: (error: Error, requestId: string | undefined) => void
}

interface Head {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string | undefined
}

/**
 * Identical requests that share one call. Members that joined later get the response only if it is certain to be
 * complete: its length is known and at most `maxBody`, so that it can be buffered for a slow client while others go on;
 * or its length is unknown and it has ended. Otherwise each of them makes a call of its own. The call goes on while it
 * has members.
 */
export class Group implements DispatchHandler {
  readonly #context: GroupContext
  readonly #onClosed: () => void
  #open = true
  readonly #members = new Members<Member>()
  /** Number of members that get the response as it arrives. */
  #reading = 0
  /** Member whose request was sent. */
  #asked!: Member
  #controller: DispatchController | null = null
  #paused = false
  /** Context of the call, for members that join after its start. */
  #started: unknown = null
  #head: Head | null = null
  /** Chunks for the members that wait for the end. */
  #collected: Buffer[] | null = null
  #bytes = 0
  #timer: NodeJS.Timeout | undefined

  /** Takes a callback, `onClosed`, which is called when no further member may join. */
  constructor(context: GroupContext, onClosed: () => void) {
    this.#context = context
    this.#onClosed = onClosed
  }

  get service(): string {
    return this.#context.service
  }

  begin(opts: DispatchOptions, handler: DispatchHandler): boolean {
    this.#asked = new Member(handler, opts, this)
    this.#members.add(this.#asked)
    try {
      return this.#context.dispatch(opts, this)
    } catch (error) {
      this.#close()
      throw error
    }
  }

  report(error: Error, requestId: string | undefined): void {
    this.#context.report(error, requestId)
  }

  join(opts: DispatchOptions, handler: DispatchHandler): void {
    const member = new Member(handler, opts, this)
    this.#members.add(member)
    this.pace()
    member.writer.start(this.#started)
  }

  leave(member: Member, reason: Error): void {
    this.#remove(member)
    const { first } = this.#members
    if (first === undefined) {
      this.#close()
      this.#controller?.abort(reason)
    } else {
      if (this.#collected !== null && this.#reading === 0) this.#give(first, this.#collected)
      if (this.#collected !== null && this.#reading === this.#members.size) this.#stopCollecting()
      this.pace()
    }
  }

  #remove(member: Member): void {
    if (member.isGone) return
    this.#members.delete(member)
    if (member.given) this.#reading--
  }

  /** Pauses the call only if its single member is paused, so that no member delays another. */
  pace(): void {
    const { first, size } = this.#members
    const paused = size === 1 && first!.writer.paused
    if (paused === this.#paused) return
    this.#paused = paused
    if (paused) this.#controller?.pause()
    else this.#controller?.resume()
  }

  onRequestStart(controller: DispatchController, context: unknown): void {
    this.#controller = controller
    this.#started = context
    if (this.#members.size === 0) controller.abort(new Error('no caller waits for the response any more'))
    else if (this.#paused) controller.pause()
    for (const { writer } of this.#members) writer.start(context)
  }

  onResponseStart(controller: DispatchController, status: number, headers: IncomingHttpHeaders, text?: string): void {
    for (const { writer } of this.#members) writer.rawHeaders = controller.rawHeaders
    if (status < 200) {
      this.#members.first?.writer.head(status, headers, text)
      return
    }
    this.#close()
    this.#head = { status, headers, text }
    const { sharing, maxBody } = this.#context
    const asked = this.#asked
    const bodiless = asked.opts.method === 'HEAD' || isBodiless(status)
    const length = bodiless ? 0 : Number(headers['content-length'] ?? -1)
    // The originating caller may have left; then the response may not fit the first of the remaining ones.
    const fits = sharing(status, headers, asked.opts)
    const others: Member[] = []
    for (const member of this.#members) {
      const isFirst = this.#members.first === member
      const isServed = member === asked || (fits?.(member.opts) && (isFirst || length <= maxBody))
      if (isServed) continue
      others.push(member)
      this.#remove(member)
    }
    const { first, size } = this.#members
    if (length < 0 && size > 1) {
      this.#collected = []
      this.#timer = setTimeout(() => this.#release(), collectMs)
    }
    if (first === undefined) controller.abort(new Error('the response fits none of the callers that are left'))
    else if (length < 0) this.#give(first, [])
    else for (const member of this.#members) this.#give(member, [])
    for (const other of others) this.#dispatchOwn(other)
    this.pace()
  }

  onResponseData(_controller: DispatchController, chunk: Buffer): void {
    for (const member of this.#members) if (member.given) member.writer.data(chunk)
    // After the loop: a member that joins during it receives the collected chunks and must not get this one twice.
    if (this.#collected === null) return
    this.#collected.push(chunk)
    this.#bytes += chunk.length
    if (this.#bytes > this.#context.maxBody) this.#release()
  }

  onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    const collected = this.#collected ?? []
    this.#stopCollecting()
    for (const member of this.#members) {
      member.writer.rawTrailers = controller.rawTrailers
      if (!member.given) this.#give(member, collected)
      member.writer.end(trailers ?? {})
    }
  }

  onResponseError(_controller: DispatchController, error: Error): void {
    this.#close()
    this.#stopCollecting()
    const all = [...this.#members]
    for (const member of all) this.#remove(member)
    all.forEach(({ given, writer }, index) => {
      if (index > 0 && !given) this.#context.count()
      writer.fail(error)
    })
  }

  #give(member: Member, chunks: readonly Buffer[]): void {
    if (member.given || member.over) return
    member.given = true
    this.#reading++
    if (member !== this.#asked) {
      member.isShared = true
      this.#context.count()
    }
    const { status, headers, text } = this.#head!
    member.writer.head(status, headers, text)
    for (const chunk of chunks) member.writer.data(chunk)
  }

  /** Stops collecting: members that wait for the end make calls of their own. */
  #release(): void {
    this.#stopCollecting()
    const waiting = [...this.#members].filter(({ given }) => !given)
    for (const member of waiting) this.#remove(member)
    for (const member of waiting) this.#dispatchOwn(member)
    this.pace()
  }

  #stopCollecting(): void {
    clearTimeout(this.#timer)
    this.#collected = null
  }

  #dispatchOwn(member: Member): void {
    if (member.over) return
    member.detachSource()
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
