// A mesh with a configuration that is complete already, without the checks of `createMesh`.
import type { MeshConfig, MeshOptions } from '../../../plugins/mesh/mesh.ts'
import { Mesh } from '../../../plugins/mesh/mesh.ts'

/** Creates a mesh and starts discovery. */
export function startMesh(config: MeshConfig, options?: MeshOptions): Mesh {
  return new Mesh(config, options).start()
}
