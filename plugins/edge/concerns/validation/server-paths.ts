import { isObject } from '../../strict-json.ts'

/** Returns the path of a server's URL, in which variables have their default values. */
export function basePathOf({ url, variables }: Readonly<Record<string, unknown>>): string {
  const text = String(url).replace(/\{([^{}]+)\}/g, (_, name: string) => {
    const variable = isObject(variables) ? variables[name] : undefined
    return isObject(variable) ? String(variable.default) : ''
  })
  const path = /^(?:[a-z][a-z0-9+.-]*:)?\/\/[^/?#]*/i.test(text)
    ? text.replace(/^(?:[a-z][a-z0-9+.-]*:)?\/\/[^/?#]*/i, '')
    : text
  const [plain = ''] = path.split(/[?#]/)
  const trimmed = plain.endsWith('/') ? plain.slice(0, -1) : plain
  return trimmed === '' || trimmed.startsWith('/') ? trimmed : `/${trimmed}`
}
