# The VPC CNI connects pods; its own policy feature is off. Two engines that judge the same pods would both have to allow.
resource "aws_eks_addon" "vpc_cni" {
  cluster_name                = var.cluster_name
  addon_name                  = "vpc-cni"
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  configuration_values = jsonencode({
    enableNetworkPolicy = "false"
    env = {
      ENABLE_PREFIX_DELEGATION          = "true"
      ENABLE_POD_ENI                    = tostring(var.security_groups_for_pods)
      POD_SECURITY_GROUP_ENFORCING_MODE = "standard"
    }
  })
}

# Not "ipvs": packets to Services would pass kidoban by.
resource "aws_eks_addon" "kube_proxy" {
  cluster_name                = var.cluster_name
  addon_name                  = "kube-proxy"
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  configuration_values = jsonencode({ mode = "iptables" })
}

resource "aws_eks_addon" "pod_identity" {
  cluster_name = var.cluster_name
  addon_name   = "eks-pod-identity-agent"
}

resource "aws_eks_addon" "coredns" {
  cluster_name = var.cluster_name
  addon_name   = "coredns"

  depends_on = [aws_eks_node_group.main] # it is active when its pods are
}
