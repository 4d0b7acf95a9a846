/** The K3s release that machines get unless their stack file or what runs already says another. */
export const defaultK3sVersion = "v1.25.4+k3s1";

/** Traefik's image as that K3s names it; on other clusters the lab's own Traefik is made from it. */
export const traefikImage = "rancher/mirrored-library-traefik:2.9.4";
