/** Source of instances that are listed in the configuration: `services.*.instances`. */
import { instancesKey } from '../../../../config/instances.ts'
import { defineSource } from '../contract.ts'
import { fixedSource } from '../fixed.ts'

export default defineSource({
  ...instancesKey,
  create: (_options, { deps }) => ({
    source: (_service, listed = []) => fixedSource(listed, deps.now),
    query: () => null
  })
})
