/** Facts about a concern with its options, for the OpenAPI document of the routes that enable it. */
export interface ApiFacts {
  /** Security scheme objects (OpenAPI 3.1, 4.8.27) of a method of authentication, by a name for them. */
  readonly security?: Readonly<Record<string, object>>
  /** Combination of the methods of a route: all of them or any one, or none at all. */
  readonly combine?: { readonly isAll?: boolean; readonly isOptional?: boolean }
  /** Statuses of refusals, with a description. */
  readonly responses?: Readonly<Record<number, string>>
  /** True if the refusals concern requests with a body only. */
  readonly ofBodies?: boolean
  /** Extensions of the operation: `x-rate-limit`. */
  readonly extensions?: Readonly<Record<`x-${string}`, unknown>>
}
