provider "helm" {
  kubernetes = {
    config_path = pathexpand(var.kubeconfig_path)
  }
}

provider "kustomization" {
  kubeconfig_path = pathexpand(var.kubeconfig_path)
}

# Helm does not upgrade CRDs. These are applied before each upgrade of the release.
# In a repository of your own the path is https://github.com/kidoban/kidoban//config/crd?ref=v0.1.0.
data "kustomization_build" "crds" {
  path = "${path.module}/../../../config/crd"
}

resource "kustomization_resource" "crds" {
  for_each = data.kustomization_build.crds.ids

  manifest = data.kustomization_build.crds.manifests[each.value]

  lifecycle {
    prevent_destroy = true # with a CRD go all its objects
  }
}

resource "helm_release" "kidoban" {
  name      = "kidoban"
  namespace = "kidoban-system"
  chart     = "${path.module}/../../../charts/kidoban"

  create_namespace = true
  skip_crds        = true
  wait             = true
  timeout          = 600

  values = [yamlencode({
    image = { registry = var.image_registry }
    eks   = true
    audit = true
  })]

  depends_on = [kustomization_resource.crds]
}
