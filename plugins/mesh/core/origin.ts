import type { ServiceOrigin } from '../../seam.ts'

/** Returns the virtual origin by which callers name a service. */
export function originOf(service: string): ServiceOrigin {
  return `http://${service}.mesh`
}

/** Returns the name of the service in a virtual origin; the origin itself if it is not a virtual one. */
export function nameOf(origin: string): string {
  return /^http:\/\/(.*)\.mesh$/.exec(origin)?.[1] ?? origin
}
