//! Every text of the console, in English and Chinese: one table, so that none is forgotten.

use std::fmt::Display;

use crate::prefs::Lang;

macro_rules! messages {
    ($($key:ident: $en:literal, $zh:literal;)*) => {
        /// A text; `{}` stands for what is filled in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum M { $($key),* }

        impl M {
            /// All of them.
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$key),*];

            /// In a language.
            pub fn text(self, lang: Lang) -> &'static str {
                match lang {
                    Lang::En => match self { $(Self::$key => $en),* },
                    Lang::Zh => match self { $(Self::$key => $zh),* },
                }
            }
        }
    };
}

impl M {
    /// In a language, with its `{}` filled in, in order. `{one|many}` is the word for the value before it, and
    /// `{0?one|many}` that for the first value.
    pub fn fill(self, lang: Lang, values: &[&dyn Display]) -> String {
        let mut out = String::new();
        let mut filled: Vec<String> = Vec::new();
        let mut rest = self.text(lang);
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let (inner, after) = after.split_once('}').unwrap_or((after, ""));
            rest = after;
            let Some((one, many)) = inner.split_once('|') else {
                let value = values.get(filled.len()).map(ToString::to_string);
                filled.push(value.unwrap_or_default());
                out.extend(filled.last().map(String::as_str));
                continue;
            };
            let (of, one) = match one.split_once('?') {
                Some((index, one)) => (index.parse().ok().and_then(|n: usize| filled.get(n)), one),
                None => (filled.last(), one),
            };
            out.push_str(if of.is_some_and(|n| n == "1") {
                one
            } else {
                many
            });
        }
        out.push_str(rest);
        out
    }
}

messages! {
    Move: "Move", "迁移";
    MoveTo: "To the cell", "迁往单元";
    MoveNowhere: "There is no other cell to move to: add one to the group's placement.", "没有其他可迁往的单元：请先在分组的放置中添加。";
    MoveSays: "{} {instance|instances} {0?goes|go} from {} {cell|cells} to {}: {0?the new one comes first|each time the new one comes first}, and the old one goes once that is in service.", "{} 个实例（{} 个单元）将迁往 {}：先增新实例，在服后旧实例退出。";
    MoveStep: "{} goes once {} has one more in service", "{} 将在 {} 多一个在服实例后退出";
    MovePasses: "{} is not the last of {}: its pod goes, {} goes once {} has one more in service, and a new pod takes its name", "{} 不是 {} 的末位实例：其 Pod 先退出，{} 将在 {} 多一个在服实例后退出，随后以原名新建";
    Topology: "From service to instances", "从服务到实例";
    MainContainer: "Main", "主容器";
    MapBy: "Colour by", "着色依据";
    MapByRequests: "Requests", "申请量";
    MapByLoad: "Load", "实际负载";
    MapByProblems: "Problems", "问题";
    MapNoLoad: "No member has measured its nodes yet: their load comes from metrics.k8s.io.", "尚无成员集群的节点用量：负载取自 metrics.k8s.io。";
    LoadFine: "nothing wrong", "正常";
    Pools: "Capacity by pool", "各资源池容量";
    Pool: "Pool", "资源池";
    Resource: "Resource", "资源";
    RoomTitle: "What quotas and cells leave", "配额与单元余量";
    RoomOf: "Quota or cell", "配额或单元";
    RoomMore: "Asked for beyond that", "本次增量";
    RoomFits: "enough", "足够";
    RoomShort: "too little", "不足";
    RoomNone: "The release asks for nothing beyond what its instances have now.", "本次发布不需要额外资源。";
    SessionEnded: "Your session has ended. Log in again, and you are back where you were.", "会话已结束。重新登录后将回到原页面。";
    KeyChoose: "Choose what is marked", "勾选当前行";
    Choose: "Choose", "选择";
    Chosen: "The chosen:", "对所选：";
    ChooseInstances: "Choose at least one instance of the group that is still there.", "请至少选择一个仍存在的实例。";
    Memory: "Memory", "内存";
    PullOut: "Pull out", "摘除流量";
    PutBack: "Put back", "恢复流量";
    PullOutSays: "{} {instance|instances} in {} {cell|cells} {0?is|are} kept out of traffic until {0?it is|they are} put back, in turn, as the group's budget allows ({} out at once).", "{} 个实例（{} 个单元）将被摘除流量，直至恢复；按分组可用性预算依次进行（同时至多 {}）。";
    PutBackSays: "{} {instance|instances} in {} {cell|cells} {0?takes|take} traffic again. (The group's budget: {} out at once.)", "{} 个实例（{} 个单元）将恢复流量。（分组预算：同时停服至多 {}。）";
    RestartManySays: "{} {pod|pods} in {} {cell|cells} {0?is|are} replaced by {0?a new one of the same name|new ones of the same names} and revision, in turn, as the group's budget allows ({} out at once).", "{} 个 Pod（{} 个单元）将以同名同版本重建，按分组可用性预算依次进行（同时至多 {}）。";
    Wished: "{}: {}", "{}：{}";
    Placement: "Placement", "放置";
    PlacementHint: "The scheduler's rules are read against the cluster as it is now: of a placed instance as if it were placed again.", "以集群当前状态按调度规则解释；对已放置的实例，视为重新放置。";
    PlacementPlaced: "Placed on", "已放置于";
    PlacementNotAgain: "It would fit nowhere now; it is on", "现在已无处可放；目前位于";
    PlacementSoon: "It waits, though nodes would take it now", "等待中，但现在已有节点可放置";
    PlacementPending: "It fits nowhere", "无处可放";
    PlacementNodes: "{} of {} nodes would take it now.", "当前 {} / {} 个节点可接纳。";
    PlacementChanges: "What would let it fit, least first", "怎样才能放下（改动最小者在前）";
    PlacementOnNodes: "{} {node|nodes}", "{} 个节点";
    PlacementPreempt: "Or preemption: {} {pod|pods} of lower priority would leave {}.", "或抢占：{} 个低优先级 Pod 将离开 {}。";
    PlacementExcluded: "What excludes nodes", "排除节点的原因";
    PlacementScores: "Scores of the best nodes", "最佳节点得分";
    PlacementTotal: "Total", "总分";
    PlacementHere: "here", "当前";
    ScaleCancel: "Give it up", "放弃伸缩";
    ScaleCancelSays: "The number is set to what is there: {}.", "数量将设为现有数：{}。";
    ScaleSettled: "Nothing is under way: the group has its size.", "没有进行中的伸缩：分组已达到目标数量。";
    ScaleHistory: "Scaled before", "伸缩历史";
    ScaleNever: "Nobody has scaled it yet.", "尚无伸缩记录。";
    Filter: "Filter", "筛选";
    FilterNone: "Clear", "清除";
    Hooks: "Notification hooks", "通知钩子";
    HooksHint: "A hook tells a webhook or a chat tool of what happens in a tenant; in gantry-system, in the whole fleet.", "通知钩子将租户内发生的事告知 Webhook 或聊天工具；在 gantry-system 中则针对整个机群。";
    HookNew: "New hook", "新建通知钩子";
    HookTaken: "Delivers", "送达正常";
    HookRefused: "Not delivered", "未送达";
    HookUntried: "Not tried yet", "尚未发送";
    HookFormat: "Format", "格式";
    HookDelivered: "Delivered", "已送达";
    HookWaiting: "Waiting", "等待中";
    HookDead: "Given up on", "已放弃";
    HookNoneDead: "None was given up on.", "没有放弃的投递。";
    HookLast: "Last delivered", "最近送达";
    HookTries: "Tries", "尝试次数";
    HookTest: "Send a test", "发送测试";
    HookTested: "A test is on its way; what comes of it stands here.", "测试已发出，结果将显示于此。";
    HookUrlHint: "URLs of chat tools hold a secret: put them into a Secret of the tenant and name it by urlFrom.", "聊天工具的 URL 含有机密：请放入租户的 Secret，并以 urlFrom 引用。";
    NoHooks: "No notification hooks", "没有通知钩子";
    Tokens: "Tokens", "令牌";
    TokensHint: "Kubernetes issues tokens for ServiceAccounts. A person's own token comes from their identity provider, and cannot be issued here.", "Kubernetes 仅为 ServiceAccount 签发令牌；个人令牌来自其身份提供方，无法在此签发。";
    TokenAccount: "ServiceAccount (NAMESPACE/NAME)", "ServiceAccount（命名空间/名称）";
    TokenHours: "Hours it is good for", "有效小时数";
    TokenIssue: "Issue", "签发";
    TokenIssued: "Issued", "已签发";
    TokenUntil: "{}, until {}", "{}，有效至 {}";
    TokenOnce: "It is shown this once, and kept nowhere.", "仅此一次显示，不作任何保存。";
    TokenNone: "You may issue no tokens: that takes `create serviceaccounts/token` in a namespace.", "您无权签发令牌：需要命名空间中的 create serviceaccounts/token 权限。";
    TimeZoneNow: "Now: {}", "当前：{}";
    Favourites: "Favourites", "收藏";
    FavouriteMake: "Add to favourites", "加入收藏";
    FavouriteNot: "Remove from favourites", "取消收藏";
    ClusterConnecting: "Connecting", "连接中";
    ClusterConnectingHint: "The hub looks at a new cluster within some seconds; if this stays, look at its access: kubectl describe cluster.", "中枢会在数秒内接入新集群；若持续如此，请检查其访问配置：kubectl describe cluster。";
    LoginOidc: "Log in with {}", "通过 {} 登录";
    LoginOr: "or with a token, kubeconfig or certificate of the hub:", "或使用中枢的令牌、kubeconfig 或证书：";
    LoginOnward: "You are logged in. Go on.", "已登录，继续。";
    Terminal: "Terminal", "终端";
    TerminalAnew: "Open anew", "重新打开";
    TerminalEnded: "The session has ended", "会话已结束";
    TerminalFailed: "The terminal could not be opened: you may lack the right (pods/exec), or the container is not running", "无法打开终端：可能缺少权限（pods/exec）或容器未运行";
    TerminalHint: "This session is recorded: who, when, where and for how long. Shift+Esc leaves the terminal by keyboard.", "本会话将被记录：操作人、时间、位置与时长。按 Shift+Esc 可用键盘离开终端。";
    TerminalScript: "A terminal needs scripts to be on.", "终端需要启用脚本。";
    Shell: "Shell", "命令解释器";
    Policies: "Policies", "放置策略";
    Policy: "Policy", "放置策略";
    PolicyNew: "New policy", "新建放置策略";
    PolicyPods: "Which pods", "适用 Pod";
    PolicyAllPods: "all pods", "全部 Pod";
    PolicySays: "What it says", "规则";
    PolicyEffective: "Effective", "生效中";
    PolicyUnread: "Not read yet", "尚未读取";
    PolicyNowhere: "Choose at least one cluster.", "请至少选择一个集群。";
    PolicyDeleteSays: "It selects {} {pod|pods}. {0?It stays where it is|They stay where they are}; from the next placement on, {0?it is|they are} placed without this policy.", "该策略选中 {} 个 Pod。它们保持原位；之后的放置不再受其约束。";
    NoPolicies: "No placement policies", "没有放置策略";
    NoPoliciesHint: "A policy says where pods may and should go: spread, neighbours, pools, hardware. It holds from the next placement on.", "放置策略规定 Pod 可以与应当放在何处：打散、亲疏、资源池、机型。自下一次放置起生效。";
    Priority: "Priority", "优先级";
    TrialTitle: "Whose pods would now land elsewhere", "哪些 Pod 会改变位置";
    TrialHint: "The scheduler thinks every pod that runs away and places it again, without this text and with it. Nothing is changed.", "调度器会设想每个运行中的 Pod 重新放置，比较有无此策略的结果。不做任何更改。";
    TrialAsk: "Ask the scheduler", "询问调度器";
    TrialSelects: "It selects {} {pod that runs|pods that run}.", "选中运行中的 Pod {} 个。";
    TrialNone: "No pod would land elsewhere", "没有 Pod 会改变位置";
    TrialSays: "{} {pod runs|pods run}: {} could no longer be placed where they are ({} of them nowhere); {} more would be placed elsewhere.", "运行中的 {} 个 Pod 中，{} 个无法再留在原节点（其中 {} 个无处可去），另有 {} 个会放到别处。";
    TrialTo: "To", "去向";
    TrialNowhere: "nowhere", "无处可去";
    Delete: "Delete", "删除";
    Saved: "{} is saved", "{} 已保存";
    EditHint: "Edit the text: the API server says as you type whether it would take it.", "编辑文本，API 服务器会即时判断是否接受。";
    EditNothing: "Nothing is changed", "没有更改";
    EditTaken: "would be taken", "可以保存";
    Quotas: "Quotas", "配额";
    Quota: "Quota", "配额";
    QuotaUsed: "Used", "用量";
    QuotaBinds: "Binds first", "最先受限";
    QuotaFull: "Used up", "已用尽";
    QuotaTight: "Tight (80 % and more)", "紧张（80% 以上）";
    QuotaBorrows: "borrows", "借用中";
    QuotaGuaranteed: "{} guaranteed", "保障 {}";
    QuotaBelow: "below {}", "隶属 {}";
    QuotaKept: "The hub keeps this quota as its tenant says: what is edited here is undone. Change the tenant.", "此配额由中枢按租户设定维护，在此编辑会被还原，请修改租户。";
    NoQuotas: "No quotas", "没有配额";
    NoQuotasHint: "Quotas of tenants, ResourceQuotas and ElasticQuotas of members appear here.", "租户配额以及成员集群的 ResourceQuota、ElasticQuota 显示于此。";
    KeyPolicies: "Policies", "放置策略";
    KeyQuotas: "Quotas", "配额";
    KeyRecords: "Records", "操作记录";
    Abort: "End here", "就此结束";
    AbortSays: "The release ends here. {} {instance|instances} that it has touched {0?stays as it is|stay as they are}; {} {other is|others are} not touched any more.", "发布就此结束。已处理的 {} 个实例保持现状，其余 {} 个不再处理。";
    AcceptAuto: "As soon as it is ready", "就绪后自动接受";
    AcceptManual: "A person", "人工接受";
    Address: "Address", "地址";
    AfterBatch: "After", "位于";
    Age: "Age", "时长";
    All: "All", "全部";
    AllReleases: "All releases of this group", "该分组的全部发布";
    AndMore: "and {} more", "另有 {} 项";
    AndOthers: "{} {other|others} that you may not see", "另有 {} 个您无权查看";
    App: "App", "应用";
    Approvals: "Approvals", "审批";
    Approve: "Approve", "批准";
    ApproveSays: "The release waits for people to agree. What you say is recorded under your name.", "发布正在等待审批。您的意见将以您的名义记录。";
    Approved: "approved", "已批准";
    AtMost: "at most {}", "至多 {}";
    Back: "Back", "返回";
    Baseline: "Baseline", "基线";
    Bastion: "Bastion", "堡垒批";
    BastionAccept: "Who accepts the bastion", "堡垒批由谁接受";
    BastionInstances: "Bastion instances", "堡垒批实例数";
    BatchDone: "Done", "完成";
    BatchFailed: "Failed", "失败";
    BatchN: "Batch {}", "第 {} 批";
    BatchReady: "Ready to accept", "待接受";
    BatchRunning: "Running", "进行中";
    BatchSizes: "Batch sizes", "各批大小";
    BatchSkipped: "Skipped", "已跳过";
    BatchWaiting: "Waiting", "等待";
    BatchesDone: "Batches", "批次";
    ButtonUseless: "As the release stands now, this would do nothing.", "按发布当前状态，此操作不起作用。";
    By: "By", "操作人";
    Cell: "Cell", "单元";
    CellOrder: "Order of cells", "单元顺序";
    Cells: "Cells", "单元";
    CellsAtOnce: "Cells at once", "同时发布的单元数";
    Changed: "Changed", "变更";
    ChangedFields: "Changed from the one before", "与上一版本的差异";
    Close: "Close", "关闭";
    Cluster: "Cluster", "集群";
    Clusters: "Clusters", "集群";
    Comment: "Comment", "意见";
    Compare: "Compare", "比较";
    Condition: "Condition", "条件";
    Conditions: "Conditions", "条件";
    ConnectionBack: "Live again", "已恢复";
    ConnectionLost: "Connection lost – what you see may be old", "连接中断，所见可能已过时";
    Container: "Container", "容器";
    Containers: "Containers", "容器";
    Continue: "Continue", "继续";
    Cordon: "Cordon", "封锁";
    CordonSays: "No new instance is placed here. The {} that {runs stays|run stay}.", "不再放置新实例。正在运行的 {} 个保持不动。";
    Cordoned: "Cordoned", "已封锁";
    CordonedNow: "{} takes no new instances now", "{} 不再接收新实例";
    Count: "Count", "次数";
    CpuRequested: "CPU requested", "CPU 申请";
    Create: "Create", "新建";
    CreateTitle: "Create an app and a group", "新建应用与分组";
    Current: "current", "当前";
    DiffOf: "Revision {} → {}", "版本 {} → {}";
    Download: "Download", "下载";
    Drain: "Drain", "排空";
    DrainAtOnce: "at once", "立即迁走";
    DrainBlocked: "its budget is used up: waits", "可用性预算已用尽：等待";
    DrainSays: "{} {instance|instances} of {} {group|groups} {0?is|are} evicted, as {1?its budget allows|their budgets allow}; {0?it comes|they come} back on other nodes.", "将按可用性预算驱逐 {} 个实例（涉及 {} 个分组），它们会在其他节点恢复。";
    DrainSteps: "{} at a time", "每次 {} 个";
    Draining: "{} is closed; {} {instance is|instances are} evicted as their budgets allow", "{} 已封锁，正按预算驱逐 {} 个实例";
    Elapsed: "Elapsed", "已用时";
    Emergency: "Emergency", "紧急放行";
    EmergencySays: "The release goes on in spite of freezes and closed windows. That and your name are recorded; the API server holds the names that may.", "发布将无视封网与变更窗口继续进行。此举与您的姓名将被记录，是否允许由 API 服务器裁定。";
    EnvAndFiles: "Environment and files", "环境变量与文件";
    EnvSet: "Environment to set, one a line", "设置环境变量，每行一个";
    EnvUnset: "Environment to remove", "删除环境变量";
    Environment: "Environment", "环境";
    ErrorBad: "This cannot be done so", "无法这样操作";
    ErrorBadHint: "Go back, mend what is named, and send it again.", "请返回修正后重试。";
    ErrorConflict: "It has changed meanwhile", "对象已被更改";
    ErrorConflictHint: "Look at it again: someone or something else was faster.", "请重新查看：已有其他人或程序先行更改。";
    ErrorCsrf: "This form was not sent by a page of your session. Load the page again.", "该表单并非由您会话中的页面发出，请重新加载页面。";
    ErrorForbidden: "You may not do this", "您无权执行此操作";
    ErrorForbiddenHint: "The API server decides by RBAC. Ask whoever grants rights for the one that is named.", "由 API 服务器按 RBAC 裁定。请向授权者申请所述权限。";
    ErrorNotFound: "There is nothing here", "此处没有内容";
    ErrorNotFoundHint: "There is no such object, or none that you may see.", "没有这样的对象，或您无权查看。";
    ErrorTitle: "Something went wrong", "出错了";
    ErrorUpstream: "The hub or a member does not answer", "中枢或成员集群无响应";
    ErrorUpstreamHint: "Try again in a moment. What runs goes on without the console.", "请稍后重试。控制台不影响正在运行的业务。";
    Events: "Events", "事件";
    ExitCode: "exit code {}", "退出码 {}";
    FailPause: "Stands still", "暂停";
    FailRollback: "Goes back", "回滚";
    Failed: "Failed", "失败";
    FailureTolerance: "Failures tolerated", "容忍失败数";
    FilePath: "File to put in (path)", "写入文件（路径）";
    FileText: "Its text", "文件内容";
    Fleet: "Fleet", "总览";
    Follow: "Follow", "跟随";
    From: "From", "自";
    Gate: "Gate", "关卡";
    GateFailed: "Failed", "未通过";
    GateOverridden: "Overridden", "已绕过";
    GatePassed: "Passed", "通过";
    GateRunning: "Asking", "检查中";
    GateWaiting: "Not yet", "未到";
    Gates: "Gates", "关卡";
    GoBackTo: "Release this", "发布此版本";
    GoTo: "Go to", "前往";
    Group: "Group", "分组";
    Groups: "Groups", "分组";
    GroupsInTrouble: "Groups in trouble", "异常分组";
    HealthDegraded: "Degraded", "受损";
    HealthDown: "Down", "中断";
    HealthHalted: "Halted", "发布受阻";
    HealthHealthy: "Healthy", "健康";
    HealthIdle: "Idle", "空闲";
    HealthReleasing: "Releasing", "发布中";
    HealthScaling: "Scaling", "伸缩中";
    HealthUnknown: "Unknown", "未知";
    HealthWaiting: "Waits for you", "待人工";
    HowCarefully: "How carefully", "发布策略";
    HowManyInstances: "How many instances, over all cells", "实例总数（所有单元）";
    Image: "Image", "镜像";
    Impossible: "impossible", "不可行";
    InFlight: "In flight", "进行中";
    InPlace: "in place", "原地更新";
    InService: "In service", "在服";
    InServiceOf: "{} of {} in service", "{} / {} 在服";
    InTrouble: "In trouble", "异常";
    Instance: "Instance", "实例";
    InstanceDeadline: "Deadline of an instance", "单实例时限";
    Instances: "Instances", "实例";
    InstancesInService: "Instances in service", "在服实例";
    Interval: "Between batches", "批次间隔";
    IsThere: "is there already", "已存在";
    KeyClose: "Close", "关闭";
    KeyFleet: "Fleet", "总览";
    KeyHelp: "This list", "本列表";
    KeyMove: "Down, up in a list", "列表中下移、上移";
    KeyNodes: "Nodes", "节点";
    KeyOpen: "Open what is marked", "打开所选";
    KeyPalette: "Go anywhere", "快速前往";
    KeyReleases: "Releases", "发布";
    KeySearch: "Search on this page", "页内搜索";
    KeyServices: "Services", "服务";
    Keys: "Keys", "快捷键";
    KeysHint: "Keys", "快捷键";
    Kind: "Kind", "类型";
    KindFreeze: "Freeze", "封网";
    KindStop: "Stop", "停线";
    Labels: "Labels", "标签";
    Language: "Language", "语言";
    LastReleases: "Last releases", "最近发布";
    Legend: "Legend", "图例";
    Level: "Level", "等级";
    LineCells: "In these cells", "限这些单元";
    LineScopeMissing: "Say what is to stop: tenants, cells, or the whole fleet.", "请指明范围：租户、单元或整个机群。";
    LineStopped: "Line stopped", "已停线";
    LineTenants: "Releases of these tenants", "限这些租户";
    Lines: "Stopped lines", "停线";
    Live: "Live", "实时";
    LoadFull: "over 80 %", "超过 80%";
    LoadHigh: "to 80 %", "至 80%";
    LoadFifth: "up to 20 %", "至多 20%";
    LoadHalf: "to 60 %", "至 60%";
    LoadLow: "to 40 %", "至 40%";
    LoadNone: "empty", "空闲";
    LockStep: "In waves", "按波次";
    LogIn: "Log in", "登录";
    LogOut: "Log out", "退出";
    LoginCredential: "Token, kubeconfig, or client certificate with key", "令牌、kubeconfig，或客户端证书与私钥";
    LoginDoorUsed: "This link has been used, or is of an earlier start. Log in with a token or kubeconfig.", "此链接已使用或来自上次启动。请用令牌或 kubeconfig 登录。";
    LoginHint: "It is kept in memory until you log out, and used for what you do and nothing else.", "仅保存在内存中直至退出登录，且只用于您的操作。";
    LoginHow: "Where do I get one?", "如何获取？";
    LoginHowKubeconfig: "Or all of what kubectl uses:", "或 kubectl 所用的全部凭证：";
    LoginHowToken: "A token of a ServiceAccount:", "ServiceAccount 的令牌：";
    LoginTooMany: "Too many attempts from your address. Wait a minute.", "来自您地址的尝试过多，请稍等一分钟。";
    LoginUnknown: "The hub knows nobody by this credential, or it has expired.", "中枢不认识此凭证，或其已过期。";
    LogBefore: "Before the restart", "重启前";
    LogLost: "The connection is lost; the log goes on when the server is there again.", "连接已断开；服务器恢复后日志会继续。";
    LogNow: "Now", "当前";
    LogSome: "{} of {} instances", "前 {} 个实例，共 {} 个";
    Logs: "Logs", "日志";
    MaxUnavailable: "Out of service at once, at most", "同时停服上限";
    Measured: "Passed / asked", "通过 / 检查";
    MemoryRequested: "Memory requested", "内存申请";
    Message: "Message", "消息";
    Method: "Method", "方式";
    MomentAsked: "Asked for by {}", "{} 发起";
    MomentBatchDone: "{} done", "{}完成";
    MomentBatchStarted: "{} begins", "{}开始";
    MomentCellSkipped: "Cell {} is left out", "单元 {} 被搁置";
    MomentEnded: "Ended: {}", "结束：{}";
    MomentGateAsked: "Gate {} is asked ({})", "检查关卡 {}（{}）";
    MomentGateFailed: "Gate {} does not hold", "关卡 {} 未通过";
    MomentGatePassed: "Gate {} holds", "关卡 {} 通过";
    MomentHalted: "Stands still", "停止前进";
    MomentInstanceFailed: "{} is given up on", "放弃实例 {}";
    MomentOverridden: "Overridden: {}", "已绕过：{}";
    MomentRetried: "Failed instances are tried again", "重试失败实例";
    MomentStarted: "Plan {} is frozen", "计划 {} 已冻结";
    MomentTurnedBack: "Turns round", "开始回滚";
    Name: "Name", "名称";
    NameDiffers: "Type the name to confirm: {}", "请输入名称以确认：{}";
    Navigation: "Navigation", "导航";
    NewRevision: "A new one", "新版本";
    Next: "Next", "下一页";
    NoCell: "no cell", "无单元";
    NoEvents: "No events", "没有事件";
    NoEventsHint: "Events are kept for an hour or so. Quiet is good.", "事件约保留一小时。没有即平静。";
    NoGroups: "No groups yet", "还没有分组";
    NoGroupsHint: "Create one here, or bring in what runs already:", "在此新建，或导入已有服务：";
    NoInstances: "No instances", "没有实例";
    NoInstancesHint: "None fits, or none has been placed yet.", "没有符合条件的实例，或尚未放置。";
    NoLines: "No line is stopped", "没有停线";
    NoLinesHint: "A stopped line halts every release it is about until it is taken back.", "停线会立即暂停范围内的所有发布，直至撤销。";
    NoReleases: "No releases", "没有发布";
    NoReleasesHint: "Open a group and start one: you see its plan before anything is touched.", "打开一个分组即可发起：动手之前先看到计划。";
    Node: "Node", "节点";
    Nodes: "Nodes", "节点";
    NodesReady: "Nodes ready", "就绪节点";
    Normal: "Normal", "普通";
    NotReady: "Not ready", "未就绪";
    Note: "Note", "备注";
    NothingChanges: "Nothing changes: give another image, environment, file or revision.", "没有变化：请更改镜像、环境变量、文件或版本。";
    NothingFound: "Nothing found", "没有找到";
    NothingFoundHint: "Try fewer letters, or take a filter away.", "请减少关键字或去掉筛选。";
    NothingWrong: "Nothing is wrong", "一切正常";
    NothingWrongHint: "Every group you see is as it should be.", "您可见的每个分组都符合预期。";
    OnThisNode: "On this node", "位于本节点";
    OutAtMost: "at most {} out at once", "同时停服至多 {}";
    OutOfService: "Out of service", "停服";
    OverrideGates: "Pass over gates as well", "同时绕过关卡";
    Overview: "Overview", "概览";
    Owners: "Owners", "负责人";
    Page: "page", "页面";
    Pages: "Pages", "分页";
    PaletteHint: "Group, release, node or page", "分组、发布、节点或页面";
    Path: "Path", "路径";
    Pause: "Pause", "暂停";
    PauseAfterBastion: "After the bastion", "堡垒批之后";
    PauseEachBatch: "After every batch", "每批之后";
    PauseNever: "Nowhere", "不停";
    PauseWhere: "Stops to be let on", "在何处等待放行";
    PhaseAborted: "Ended early", "已中止";
    PhaseBastion: "Bastion", "堡垒批";
    PhaseBatch: "Batch", "批次进行中";
    PhaseFailed: "Failed", "失败";
    PhaseGate: "Gate", "关卡";
    PhaseHalted: "Halted", "受阻";
    PhasePaused: "Paused", "已暂停";
    PhasePending: "Pending", "待处理";
    PhasePlanning: "Planning", "规划中";
    PhaseQueued: "Queued", "排队中";
    PhaseRolledBack: "Rolled back", "已回滚";
    PhaseRollingBack: "Rolling back", "回滚中";
    PhaseSucceeded: "Succeeded", "成功";
    PhaseWaits: "Waits for you", "待人工";
    Plan: "Plan", "计划";
    Ports: "Ports", "端口";
    Preview: "Preview", "预览";
    PreviewPlan: "Show the plan", "查看计划";
    Previous: "Previous", "上一页";
    Problem: "Problem", "有问题";
    Progress: "Progress", "进度";
    Reachable: "Reachable", "可达";
    LivePath: "Liveness path", "存活检查路径";
    ReadyPath: "Readiness path", "就绪检查路径";
    ReadyWord: "Ready", "就绪";
    Reason: "Reason", "原因";
    Records: "Records", "操作记录";
    NoRecords: "No records", "没有记录";
    NoRecordsHint: "What is done to your groups and releases is written here, with who and why.", "对分组与发布的操作会记录在此，包括操作人与原因。";
    Verb: "Action", "操作";
    Object: "Object", "对象";
    Recreate: "replaced", "重建";
    Refused: "refused", "被拒绝";
    Reject: "Reject", "拒绝";
    Rejected: "rejected", "已拒绝";
    Release: "Release", "发布";
    Releases: "Releases", "发布";
    ReleasesInFlight: "Releases in flight", "进行中的发布";
    Restart: "Restart", "重启";
    Restarts: "Restarts", "重启次数";
    Retry: "Retry", "重试";
    Revision: "Revision", "版本";
    Revisions: "Revisions", "版本";
    Rollback: "Roll back", "回滚";
    RollbackSays: "{} {instance|instances} in {} {cell|cells} {0?goes|go} back to where {0?it|they} came from.", "{} 个实例（{} 个单元）将回到原版本。";
    RowsOf: "{}–{} of {}", "{}–{}，共 {}";
    Running: "running", "运行中";
    RunningUnready: "running, not ready", "运行中，未就绪";
    SameRevision: "The two ask for the same.", "两个版本相同。";
    Save: "Save", "保存";
    Scale: "Scale", "伸缩";
    ScaleHint: "Now {}, in {} {cell|cells}: {}. Instances are divided by the weights of the cells.", "当前 {} 个，分布于 {} 个单元：{}。按单元权重分配。";
    ScaleZeroHint: "For none at all, type the name: {}", "缩至零时请输入名称：{}";
    Scaled: "{}: {} → {}", "{}：{} → {}";
    Scope: "Scope", "范围";
    Search: "Search", "搜索";
    Service: "Service", "服务";
    Services: "Services", "服务";
    Settings: "Settings", "设置";
    Simulated: "simulated", "模拟";
    Skip: "Skip batch", "跳过本批";
    SkipSays: "The batch is no longer waited for. What of it has been updated stays so; the rest is taken along by the next batch of its cell.", "不再等待该批。已更新的保持不变，其余随所在单元的下一批更新。";
    SkipToContent: "To the content", "跳到内容";
    SlidingWindow: "Sliding window", "滑动窗口";
    StartRelease: "Start a release", "发起发布";
    State: "State", "状态";
    StopSays: "Every release that it is about stands still at once. {} {is|are} in flight now.", "范围内的发布将立即暂停。当前进行中 {} 个。";
    StopTheLine: "Stop the line", "停线";
    Strategy: "Strategy", "策略";
    StrategyInline: "This release's own", "本次发布自定";
    StrategyOfGroup: "As the group has it", "沿用分组策略";
    TakeBack: "Take back", "撤销";
    Tenant: "Tenant", "租户";
    Tenants: "Tenants", "租户";
    Terminating: "Terminating", "终止中";
    Theme: "Theme", "主题";
    ThemeAuto: "As the system", "跟随系统";
    ThemeDark: "Dark", "深色";
    ThemeLight: "Light", "浅色";
    TileChecking: "checking", "检查中";
    TileDone: "updated", "已更新";
    TileDraining: "draining", "摘流中";
    TileFailed: "failed", "失败";
    TileHeld: "held back", "暂留";
    TileMissing: "missing", "缺失";
    TileTakenBack: "taken back", "已退回";
    TileUnready: "not ready", "未就绪";
    TileUntouched: "untouched", "未触及";
    TileUpdating: "updating", "更新中";
    TileWaiting: "waiting", "等待";
    TimeZone: "Time zone", "时区";
    Took: "took {}", "用时 {}";
    TypeName: "Type the name to confirm: {}", "请输入名称以确认：{}";
    Uncordon: "Uncordon", "解除封锁";
    UncordonSays: "Instances may be placed here again.", "可重新放置实例。";
    UncordonedNow: "{} takes instances again", "{} 可再次接收实例";
    UnderWay: "Under way", "处理中";
    Unreachable: "Unreachable", "不可达";
    Until: "Until", "至";
    Updated: "Updated", "已更新";
    UpdatedOf: "{} of {} updated", "已更新 {} / {}";
    User: "User", "用户";
    UserGroups: "Groups", "用户组";
    Value: "Value", "数值";
    Version: "Version", "版本号";
    WarmUp: "Warm-up", "预热";
    Warning: "Warning", "警告";
    WhatChanges: "What changes", "变更内容";
    WhatHappened: "What happened", "过程记录";
    When: "When", "时间";
    WhenFailed: "When too much fails", "失败过多时";
    WholeFleet: "Whole fleet", "整个机群";
    Why: "Why", "原因";
    WithinBatch: "Within a batch", "批内方式";
    WouldBeMade: "would be taken", "可以创建";
    WouldWait: "would wait now", "当前需等待";
    WrongNow: "What is wrong now", "当前问题";
    Yaml: "YAML", "YAML";
    YamlHint: "Fill in the form, or write YAML here: the hub says of either whether it would take it.", "填写表单或在此编写 YAML，中枢会即时判断是否接受。";
    YouAre: "You are", "当前身份";
    YouAreHint: "What you see and may do is what the hub's API server lets this user see and do.", "您所能见、所能为，均由中枢 API 服务器对该用户的授权决定。";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_there_in_both_languages_with_the_same_blanks() {
        for message in M::ALL {
            let (en, zh) = (message.text(Lang::En), message.text(Lang::Zh));
            assert!(!en.is_empty() && !zh.is_empty(), "{message:?}");
            assert_eq!(
                en.matches("{}").count(),
                zh.matches("{}").count(),
                "{message:?}"
            );
            let same = en == zh && en.chars().any(char::is_alphabetic);
            assert!(
                !same || *message == M::Yaml,
                "{message:?} is not translated"
            );
        }
    }

    #[test]
    fn blanks_are_filled_in_order_and_values_are_not_read_as_blanks() {
        assert_eq!(M::RowsOf.fill(Lang::En, &[&1, &"{}", &9]), "1–{} of 9");
        assert_eq!(M::RowsOf.fill(Lang::En, &[&1]), "1– of ");
        let drained =
            |instances: i32, groups: i32| M::DrainSays.fill(Lang::En, &[&instances, &groups]);
        assert_eq!(
            drained(1, 1),
            "1 instance of 1 group is evicted, as its budget allows; it comes back on other nodes."
        );
        assert_eq!(
            drained(2, 0),
            "2 instances of 0 groups are evicted, as their budgets allow; they come back on other nodes."
        );
    }
}
