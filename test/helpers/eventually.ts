import { setTimeout as sleep } from 'node:timers/promises'

/** Waits until a condition holds. Throws after `withinMs`, with the description of the condition. */
export async function eventually(
  holds: () => boolean | Promise<boolean>,
  what = String(holds),
  withinMs = 60_000
): Promise<void> {
  const end = performance.now() + withinMs
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`timed out after ${withinMs} ms: ${what}`)
    await sleep(5)
  }
}
