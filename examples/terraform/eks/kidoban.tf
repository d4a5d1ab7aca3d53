provider "kustomization" {
  kubeconfig_path = pathexpand(var.kubeconfig_path)
}

data "kustomization_overlay" "kidoban" {
  resources = ["${path.module}/kidoban"]

  config_map_generator {
    name      = "kidoban-agent-settings"
    namespace = "kidoban-system"
    behavior  = "merge"
    literals  = ["CLUSTER_NAME=${var.cluster_name}"]
  }
}

# The namespace and the CRDs, then everything else.
resource "kustomization_resource" "first" {
  for_each = data.kustomization_overlay.kidoban.ids_prio[0]

  manifest = data.kustomization_overlay.kidoban.manifests[each.value]
}

# It does not wait for pods: the agents come with the nodes, and the nodes' taint goes with the agents.
resource "kustomization_resource" "second" {
  for_each = data.kustomization_overlay.kidoban.ids_prio[1]

  manifest = data.kustomization_overlay.kidoban.manifests[each.value]

  depends_on = [kustomization_resource.first, aws_eks_pod_identity_association.agent]
}
