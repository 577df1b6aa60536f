import { setTimeout as sleep } from 'node:timers/promises'

/** Waits until a condition holds. Throws after `withinMs`, and says what a test has waited for in vain. */
export async function eventually(holds: () => boolean, what = String(holds), withinMs = 60_000): Promise<void> {
  const end = performance.now() + withinMs
  while (!holds()) {
    if (performance.now() > end) throw new Error(`waited in vain for ${withinMs} ms: ${what}`)
    await sleep(5)
  }
}
