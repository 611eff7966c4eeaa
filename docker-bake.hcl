# All three images for both architectures, each with its bill of materials and provenance attached.
#
#   docker buildx bake                                                  builds them
#   REGISTRY=registry.example/team/ TAG=1.2.3 docker buildx bake --push builds and publishes them
#   docker buildx bake --set '*.platform=linux/amd64' --load worker     one, for this machine

variable "REGISTRY" { default = "" }
variable "TAG" { default = "latest" }
variable "VERSION" { default = "0" }
variable "REVISION" { default = "unknown" }
variable "CREATED" { default = "1970-01-01T00:00:00Z" }
# Where the source is published; becomes a label when given.
variable "SOURCE" { default = "" }
variable "BASE_IMAGE" { default = "python:3.13-slim-bookworm" }

group "default" {
  targets = ["api", "worker", "scheduler"]
}

target "image" {
  matrix     = { part = ["api", "worker", "scheduler"] }
  name       = part
  context    = "."
  dockerfile = "Dockerfile"
  target     = part
  tags       = ["${REGISTRY}callboard-${part}:${TAG}"]
  platforms  = ["linux/amd64", "linux/arm64"]
  args = {
    BASE_IMAGE = BASE_IMAGE
    VERSION    = VERSION
    REVISION   = REVISION
    CREATED    = CREATED
  }
  labels = { "org.opencontainers.image.source" = notequal(SOURCE, "") ? SOURCE : null }
  attest = ["type=sbom", "type=provenance,mode=max"]
}
