# What the agents need to write the flow log to CloudWatch Logs: one group, a stream a node.
data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  log_group = "/aws/eks/${var.cluster_name}/cluster"
  log_group_arn = join(":", [
    "arn", data.aws_partition.current.partition, "logs", data.aws_region.current.region,
    data.aws_caller_identity.current.account_id, "log-group", local.log_group,
  ])
}

data "aws_iam_policy_document" "flow_log" {
  statement {
    sid       = "MakeTheGroup"
    actions   = ["logs:CreateLogGroup"]
    resources = [local.log_group_arn, "${local.log_group_arn}:*"]
  }

  statement {
    sid       = "WriteToTheNodesStreams"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${local.log_group_arn}:log-stream:kidoban-*"]
  }
}

data "aws_iam_policy_document" "pod_identity" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "agent" {
  name_prefix        = "kidoban-agent-"
  assume_role_policy = data.aws_iam_policy_document.pod_identity.json
}

resource "aws_iam_role_policy" "agent" {
  name   = "flow-log"
  role   = aws_iam_role.agent.id
  policy = data.aws_iam_policy_document.flow_log.json
}

resource "aws_eks_pod_identity_association" "agent" {
  cluster_name    = var.cluster_name
  namespace       = "kidoban-system"
  service_account = "kidoban-agent"
  role_arn        = aws_iam_role.agent.arn

  depends_on = [aws_eks_addon.pod_identity]
}
