/** Size of an idle connection's buffer. */
export const smallBytes = 16 * 1024
/** Size of the buffer for a large body: with 64 KB it costs a third more CPU. */
export const largeBytes = 256 * 1024
/** Pool of large buffers. Allocating a new one costs page faults, and puts pressure on V8's garbage collector. */
const spare: Buffer[] = []
const mostSpare = 16

/**
 * Read buffer of a connection: small, and large while a large body arrives. Node requests the buffer after each read,
 * so an idle connection has the small one.
 */
export class ReadBuffer {
  readonly #small: Buffer = Buffer.allocUnsafeSlow(smallBytes)
  #current: Buffer = this.#small
  /** Large buffer of which the paused request still has a view. */
  #lent: Buffer | null = null

  get current(): Buffer {
    return this.#current
  }

  /** Returns whether `choose` must be called after a read of so many bytes: not if a small buffer was sufficient. */
  isToChange(bytes: number): boolean {
    return bytes === smallBytes || this.#current !== this.#small
  }

  /**
   * Chooses the buffer of the next read. `remaining` is the number of bytes that the response still has. `isLent`: its
   * request has paused and may use the current buffer until it resumes.
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

  /** Called when the request resumes: it no longer uses the lent buffer. */
  resumed(): void {
    if (this.#lent !== null) giveBack(this.#lent)
    this.#lent = null
  }
}

function giveBack(buffer: Buffer): void {
  if (spare.length < mostSpare) spare.push(buffer)
}
