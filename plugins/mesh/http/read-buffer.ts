/** Size of an idle connection's buffer. */
export const smallBytes = 16 * 1024
/** Size of the buffer for a large body: with 64 KB it costs a third more CPU. */
export const largeBytes = 256 * 1024
/** Large buffers that wait for the next large body. A new one costs page faults, and counts as garbage to V8. */
const spare: Buffer[] = []
const mostSpare = 16

/**
 * The memory that a connection reads into: small, and large while a large body arrives. Node asks for it after each
 * read, so an idle connection has the small buffer by the time it is idle.
 */
export class ReadBuffer {
  readonly #small: Buffer = Buffer.allocUnsafeSlow(smallBytes)
  #current: Buffer = this.#small
  /** A large buffer of which the paused request still has a part. */
  #lent: Buffer | null = null

  get current(): Buffer {
    return this.#current
  }

  /** Returns whether `choose` is to be called after a read of so many bytes: not where a small buffer sufficed. */
  isToChange(bytes: number): boolean {
    return bytes === smallBytes || this.#current !== this.#small
  }

  /**
   * Chooses the memory of the next read. `remaining` is how many bytes the response still has, `isLent` whether its
   * request has paused, and so may use the current memory until it resumes.
   */
  choose(remaining: number, isLent: boolean): void {
    if (this.#current === this.#small) {
      if (remaining > smallBytes) this.#current = spare.pop() ?? Buffer.allocUnsafeSlow(largeBytes)
    } else if (remaining <= smallBytes) {
      if (isLent) this.#lent = this.#current
      else giveBack(this.#current)
      this.#current = this.#small
    }
  }

  /** The request has resumed: it needs nothing any more of what it was lent. */
  resumed(): void {
    if (this.#lent !== null) giveBack(this.#lent)
    this.#lent = null
  }
}

function giveBack(buffer: Buffer): void {
  if (spare.length < mostSpare) spare.push(buffer)
}
