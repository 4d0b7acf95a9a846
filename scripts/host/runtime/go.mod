module k3s-lab/oci-runtime

go 1.21
