/** Facts about a concern with its options, for the OpenAPI document of the routes that enable it. */
export interface ApiFacts {
  /** Security scheme objects (OpenAPI 3.1, 4.8.27) of a method of authentication, by a name for them. */
  readonly security?: Readonly<Record<string, object>>
  /** Combination of the methods of a route: all of them or any one, or none at all. */
  readonly combine?: { readonly isAll?: boolean; readonly isOptional?: boolean }
  /** Methods that the facts concern. Default: all. */
  readonly methods?: readonly string[]
  /** Statuses of refusals, with a description. */
  readonly responses?: Readonly<Record<number, string | undefined>>
  /** True if the refusals concern requests with a body only. */
  readonly ofBodies?: boolean
  /** Format of the bodies of these refusals: `problem` is RFC 9457. Default: that of all errors. */
  readonly format?: 'problem'
  /** Format of the bodies of all errors of the route. Default: `json`. */
  readonly errors?: 'problem'
  /** Header fields that the gateway adds to responses, with a description. */
  readonly headers?: Readonly<Record<string, string>>
  /** True if clients should stop to use the operation. */
  readonly isDeprecated?: boolean
  /** Extensions of the operation: `x-rate-limit`. */
  readonly extensions?: Readonly<Record<`x-${string}`, unknown>>
}
