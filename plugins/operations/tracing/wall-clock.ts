/** The time for spans: that of the system, but monotonic between two corrections. A correction may set it back during a span. */

let offsetMs = performance.timeOrigin

/** Smallest difference that is corrected. */
const toleratedMs = 20

/** Returns milliseconds since 1970, with fractions. */
export const now = (): number => offsetMs + performance.now()

/** Follows corrections of the system's clock. */
export function synchronize(): void {
  const differenceMs = Date.now() - now()
  if (Math.abs(differenceMs) > toleratedMs) offsetMs += differenceMs
}
