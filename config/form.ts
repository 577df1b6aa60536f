/** The forms of a configuration file: a gateway's, with the mesh and without it, and that of a sidecar, which has `sidecar` in place of listeners and routes. */
import type { TObject } from 'typebox'
import type { Steps } from '../plugins/time-slices.ts'
import { check } from './check.ts'
import type { Checked, Keys } from './concern.ts'
import type { Report } from './faults.ts'
import { removeMeshKeys } from './forward.ts'
import { gatewaySchema } from './gateway-schema.ts'
import { mergeGroups } from './groups.ts'
import { normalizeListeners, removeDisabled } from './listeners.ts'
import type { Config, Written } from './schema.ts'

export interface Form {
  schema(keys: Keys): TObject
  /** Reports and removes what a file of this form cannot have. Called before validation. */
  prune(data: object, report: Report): void
  /** Sets the listeners of validated data. */
  normalize(data: Written, report: Report): void
  check(checked: Checked): Steps<void>
  /** Adds to data without faults what the form implies: routes, services. */
  expand(data: Written): void
  /** Returns the configuration of one process, where a file is for two. */
  divide?(config: Config, keys: Keys, half: Half): Config
}

/** The process that loads a file: the gateway, or the sidecar that runs its mesh half. `both`: one process, as in tests. */
export type Half = 'gateway' | 'sidecar' | 'both'

export const gatewayForm: Form = {
  schema: gatewaySchema,
  prune: mergeGroups,
  normalize: normalizeListeners,
  check,
  expand(data, ...more) {
    Reflect.deleteProperty(data, 'groups')
    removeDisabled(data, ...more)
  }
}

/** With `mesh: false`. */
export const forwardForm: Form = {
  ...gatewayForm,
  prune(data, report) {
    mergeGroups(data, report)
    removeMeshKeys(data, report)
  }
}
