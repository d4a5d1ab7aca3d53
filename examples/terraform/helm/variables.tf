variable "kubeconfig_path" {
  description = "Kubeconfig of the cluster."
  type        = string
  default     = "~/.kube/config"
}

variable "image_registry" {
  description = "The images are REGISTRY/controller, REGISTRY/agent and REGISTRY/observer."
  type        = string
}
