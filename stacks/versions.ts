/** The default K3s release, unless the stack file or what already runs says another. */
export const defaultK3sVersion = "v1.25.4+k3s1";

/** The Traefik image of that K3s release; on other clusters the lab deploys its own Traefik from it. */
export const traefikImage = "rancher/mirrored-library-traefik:2.9.4";
