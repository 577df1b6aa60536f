/** Functions of ajv for the schemas of one document. */
import type { Ajv as AjvOfDraft7, FuncKeywordDefinition, ValidateFunction } from 'ajv'
import { linearSearch } from '../../../../config/linear-regexp.ts'
import { onFirstUse } from '../../../on-first-use.ts'
import type { Steps } from '../../../time-slices.ts'
import { spend } from './budget.ts'
import { hasUniqueItems, memberTest } from './equal-values.ts'
import { formats } from './formats.ts'

const draft7 = onFirstUse<{ Ajv: typeof AjvOfDraft7 }>('ajv')
const draft2020 = onFirstUse<{ Ajv2020: typeof AjvOfDraft7 }>('ajv/dist/2020')

export type Dialect = 'draft-07' | '2020-12' | 'openapi-3.0' | 'openapi-3.1'

export const isOld = (dialect: Dialect): boolean => dialect === 'draft-07' || dialect === 'openapi-3.0'

/** Keyword that counts work: of a `$ref`, and of the branches of `allOf`, `anyOf` and `oneOf`. */
export const step = 'jingweiStep'
/**
 * Keyword in place of `$ref`. It finds the function of the other schema when it is called, so that ajv compiles each schema on
 * its own: with `$ref` it compiles all that a schema leads to, recursively, which takes long and may exhaust the stack.
 */
export const reference = 'jingweiRef'
export const costOfReference = 20

const validatorOf = (dialect: Dialect) => (isOld(dialect) ? draft7().Ajv : draft2020().Ajv2020)

/** Validators of schemas themselves, which all documents share. */
const checkers = new Map<boolean, AjvOfDraft7>()

export function checkerOf(dialect: Dialect): AjvOfDraft7 {
  let checker = checkers.get(isOld(dialect))
  if (checker === undefined) {
    checker = new (validatorOf(dialect))({ strict: false, logger: false })
    checkers.set(isOld(dialect), checker)
  }
  return checker
}

export class Validators {
  readonly #ajv: AjvOfDraft7
  readonly #schemas: ReadonlyMap<string, object | boolean>
  readonly #functions = new Map<string, ValidateFunction>()

  /** `allErrors`: lists all errors; otherwise stops at the first one. */
  constructor(dialect: Dialect, schemas: ReadonlyMap<string, object | boolean>, allErrors: boolean) {
    this.#schemas = schemas
    this.#ajv = new (validatorOf(dialect))({
      allErrors,
      meta: false,
      validateSchema: false,
      strict: false,
      logger: false,
      inlineRefs: false,
      ownProperties: true,
      addUsedSchema: false,
      multipleOfPrecision: 8,
      formats: formats as never,
      code: { optimize: false, regExp: Object.assign(linear, { code: 'linear' }) as never }
    })
    addKeywords(this.#ajv, this.#functions)
  }

  *compileAll(): Steps<void> {
    for (const [id, schema] of this.#schemas) this.#ajv.addSchema(schema as object, id, false, false)
    for (const id of this.#schemas.keys()) {
      this.#functions.set(id, this.#ajv.getSchema(id) as ValidateFunction)
      yield
    }
  }

  get(id: string): ValidateFunction {
    return this.#functions.get(id)!
  }
}

type Compiled = ReturnType<NonNullable<FuncKeywordDefinition['compile']>>

function addKeywords(ajv: AjvOfDraft7, functions: ReadonlyMap<string, ValidateFunction>): void {
  ajv.removeKeyword('uniqueItems')
  ajv.addKeyword({
    keyword: 'uniqueItems',
    type: 'array',
    schemaType: 'boolean',
    error: { message: 'must NOT have equal items' },
    validate: (isUnique: boolean, items: readonly unknown[]) => !isUnique || hasUniqueItems(items)
  })
  ajv.removeKeyword('enum')
  ajv.addKeyword({
    keyword: 'enum',
    schemaType: 'array',
    error: { message: 'must be equal to one of the allowed values' },
    compile: memberTest
  })
  ajv.addKeyword({
    keyword: step,
    schemaType: 'number',
    errors: false,
    before: '$ref',
    validate: (cost: number) => {
      spend(cost)
      return true
    }
  })
  ajv.addKeyword({
    keyword: reference,
    schemaType: 'string',
    errors: true,
    before: '$ref',
    compile: (id: string) => {
      const refer: Compiled = (value, context) => {
        spend(costOfReference)
        const validate = functions.get(id)!
        const isValid = validate(value, context) as boolean
        refer.errors = validate.errors ?? []
        validate.errors = null
        return isValid
      }
      return refer
    }
  })
}

/** Compiles a pattern for ajv, which tells patterns apart by their texts. */
function linear(pattern: string): { test(text: string): boolean; toString(): string } {
  return { test: linearSearch(pattern, spend), toString: () => pattern }
}
