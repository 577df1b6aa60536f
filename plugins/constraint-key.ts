/** Returns a text that is equal for equal constraints of a route. Plain JSON would turn each regular expression into `{}`. */
export function constraintKey(constraints: Readonly<Record<string, unknown>> | undefined): string {
  return JSON.stringify(constraints ?? {}, (_name, value: unknown) => (value instanceof RegExp ? String(value) : value))
}
