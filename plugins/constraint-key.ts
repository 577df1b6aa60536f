/** Returns text that is equal for equal constraints of a route. JSON alone makes `{}` of each regular expression. */
export function constraintKey(constraints: Readonly<Record<string, unknown>> | undefined): string {
  return JSON.stringify(constraints ?? {}, (_name, value: unknown) => (value instanceof RegExp ? String(value) : value))
}
