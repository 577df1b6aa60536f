/** The checks of `edge.validation`. */
import type { Checked } from '../../../../config/concern.ts'
import type { ValidationOptions } from './options.ts'
import { compileRoute, placeKeys } from './route-schemas.ts'

export function checkValidation(options: ValidationOptions, at: string, { report, absolute }: Checked): void {
  const keys = [...Object.keys(placeKeys), 'body'] as ('query' | 'body')[]
  if (keys.some((key) => !report.usable(`${at}/${key}`))) return
  if (keys.every((key) => options[key] === undefined)) {
    report.fault(at, 'has nothing to check: write query, path, headers, cookies or body')
    return
  }
  const { body } = options
  if (body !== undefined) {
    if (!report.usable(`${at}/body/content`)) return
    for (const [range, schema] of Object.entries(body.content)) {
      if (!/^(?:\*\/\*|[a-z0-9!#$&^_.+-]+\/(?:[a-z0-9!#$&^_.+-]+|\*|\*\+[a-z0-9.-]+))$/i.test(range)) {
        report.fault(`${at}/body/content`, `"${range}" is not a media type such as application/json or text/*`, 'key')
        return
      }
      if (schema !== true && (typeof schema !== 'object' || schema === null)) {
        report.fault(`${at}/body/content`, `"${range}": expected a JSON Schema, or true for any body of this type`)
        return
      }
    }
  }
  const file = absolute('config')
  compileRoute(options, file, (key, { place, message }) => {
    // A fault in another file has its place there.
    if (place.source.file === file) report.fault(`${at}/${key}${place.pointer}`, message)
    else report.fault(`${at}/${key}`, `${place.source.file}#${place.pointer}: ${message}`)
  })
}
