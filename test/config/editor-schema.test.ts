import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv } from 'ajv'
import { load } from 'js-yaml'
import t from 'tap'
import { editorSchema } from '../../config/editor-schema.ts'
import { loader } from '../../plugins/config.ts'

// Like editors, Ajv ignores unknown formats and keywords.
const validate = new Ajv({ strict: false, validateFormats: false, allErrors: true }).compile(
  editorSchema(loader.schema)
)
const faults = (text: string) => {
  validate(load(text))
  return (validate.errors ?? []).filter(({ keyword }) => keyword !== 'if').map((error) => error.instancePath)
}

t.test('a valid file has no fault in an editor', async (t) => {
  t.strictSame(faults(readFileSync(join(import.meta.dirname, '../../config/gateway.yaml'), 'utf8')), [])
  t.strictSame(faults('{}'), [], 'every key has a default')
  // biome-ignore-start lint/suspicious/noTemplateCurlyInString: how a variable is written
  t.strictSame(faults('listen:\n  port: ${PORT}\n  http2: "${H2}"\n  timeouts:\n    headers: ${T:-1s}'), [])
  // biome-ignore-end lint/suspicious/noTemplateCurlyInString: as above
})

t.test('a fault is marked at its key', async (t) => {
  t.match(faults('listen: { port: high }'), ['/listen/port'])
  t.strictSame(faults('mesh: { timeout: 5 }'), ['/mesh/timeout'])
  t.strictSame(faults('mesh: { timeout: 5 minutes }'), ['/mesh/timeout'])
  t.strictSame(faults('mesh: false'), [])
  t.strictSame(faults('mesh: true'), ['/mesh'])
  t.strictSame(faults('routes: [{ name: a }]'), ['/routes/0'], 'match has no default')
  t.strictSame(faults('edge: { corss: false }'), ['/edge'])
})
