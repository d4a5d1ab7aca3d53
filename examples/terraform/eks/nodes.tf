# Nodes are registered with a taint that kidoban's agent takes off when policies are in force there.
resource "aws_eks_node_group" "main" {
  cluster_name    = var.cluster_name
  node_group_name = "main"
  node_role_arn   = var.node_role_arn
  subnet_ids      = var.subnet_ids
  ami_type        = "AL2023_x86_64_STANDARD" # its kernel has to be 6.6 or newer
  instance_types  = ["m7i.large"]

  scaling_config {
    min_size     = 2
    desired_size = 2
    max_size     = 10
  }

  taint {
    key    = "kidoban.dev/agent-not-ready"
    value  = "true"
    effect = "NO_SCHEDULE"
  }

  update_config {
    max_unavailable_percentage = 10
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size] # an autoscaler's
  }

  depends_on = [aws_eks_addon.vpc_cni, aws_eks_addon.kube_proxy]
}
