variable "kubeconfig_path" {
  description = "Kubeconfig of the cluster."
  type        = string
  default     = "~/.kube/config"
}

variable "image_registry" {
  description = "The images are REGISTRY/controller and REGISTRY/agent."
  type        = string
}
