/** The JWT secret in `gateway.yaml`, the example for `npm start`. It is public, so anyone can sign tokens with it. */
export const publishedSecret = 'for development only, change it in production'
