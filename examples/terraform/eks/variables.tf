variable "cluster_name" {
  description = "Name of an EKS cluster that exists, without node groups of its own."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets of the node group."
  type        = list(string)
}

variable "node_role_arn" {
  description = "ARN of the nodes' IAM role."
  type        = string
}

variable "kubeconfig_path" {
  description = "kubeconfig of an administrator of the cluster."
  type        = string
  default     = "~/.kube/config"
}

variable "security_groups_for_pods" {
  description = "Whether pods get security groups of their own. The cluster's role then needs AmazonEKSVPCResourceController."
  type        = bool
  default     = false
}
